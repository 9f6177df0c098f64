// Stands in for Triton's onnxruntime backend as a library, the way the real one is made: one session
// for a model, no copy through another process, and states of sequences through Triton's own calls.
// It takes what `toolkit package` writes; that configurations are refused is the Python stand-in's
// business.
#include <onnxruntime_cxx_api.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "triton_api.hpp"

namespace {

constexpr int kInternal = 1;    // TRITONSERVER_ERROR_INTERNAL
constexpr uint32_t kAll = 1;    // TRITONSERVER_REQUEST_RELEASE_ALL
constexpr uint32_t kFinal = 1;  // TRITONSERVER_RESPONSE_COMPLETE_FINAL

struct Kind {
  int triton;
  ONNXTensorElementDataType onnx;
  size_t bytes;
};

// TRITONSERVER_DataType counts from 0 for INVALID: BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16,
// INT32, INT64, FP16, FP32, FP64.
constexpr Kind kKinds[] = {
    {1, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},    {2, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
    {3, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2},  {4, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4},
    {5, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8},  {6, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},
    {7, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2},   {8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},
    {9, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},   {10, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2},
    {11, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},  {12, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},
};

const Kind& ofTriton(int dtype) {
  for (const Kind& kind : kKinds)
    if (kind.triton == dtype) return kind;
  throw std::runtime_error("a tensor of Triton's type " + std::to_string(dtype));
}

const Kind& ofOnnx(ONNXTensorElementDataType dtype) {
  for (const Kind& kind : kKinds)
    if (kind.onnx == dtype) return kind;
  throw std::runtime_error("a tensor of ONNX type " + std::to_string(dtype));
}

void check(TRITONSERVER_Error* error) {
  if (error == nullptr) return;
  std::string said = TRITONSERVER_ErrorMessage(error);
  TRITONSERVER_ErrorDelete(error);
  throw std::runtime_error(said);
}

TRITONSERVER_Error* guarded(auto&& work) {
  try {
    work();
  } catch (const std::exception& error) {
    return TRITONSERVER_ErrorNew(kInternal, error.what());
  }
  return nullptr;
}

uint64_t now() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

size_t elements(const std::vector<int64_t>& shape, size_t from = 0) {
  size_t count = 1;
  for (size_t i = from; i < shape.size(); ++i) count *= static_cast<size_t>(shape[i]);
  return count;
}

// One request's input, or several requests' joined along the first axis.
struct Tensor {
  int dtype = 0;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};
using Tensors = std::map<std::string, Tensor>;

Tensors read(TRITONBACKEND_Request* request) {
  Tensors found;
  uint32_t count = 0;
  check(TRITONBACKEND_RequestInputCount(request, &count));
  for (uint32_t i = 0; i < count; ++i) {
    TRITONBACKEND_Input* input = nullptr;
    check(TRITONBACKEND_RequestInputByIndex(request, i, &input));
    const char* name = nullptr;
    const int64_t* shape = nullptr;
    uint32_t dims = 0, buffers = 0;
    uint64_t bytes = 0;
    Tensor tensor;
    check(TRITONBACKEND_InputProperties(
        input, &name, &tensor.dtype, &shape, &dims, &bytes, &buffers));
    tensor.shape.assign(shape, shape + dims);
    for (uint32_t part = 0; part < buffers; ++part) {
      const void* data = nullptr;
      int memory = 0;
      int64_t id = 0;
      check(TRITONBACKEND_InputBuffer(input, part, &data, &bytes, &memory, &id));
      const char* start = static_cast<const char*>(data);
      tensor.bytes.insert(tensor.bytes.end(), start, start + bytes);
    }
    found.emplace(name, std::move(tensor));
  }
  return found;
}

// A request, what it gives, and where its rows begin in the joined batch.
struct Call {
  TRITONBACKEND_Request* request = nullptr;
  TRITONBACKEND_Response* response = nullptr;
  Tensors inputs;
  int64_t rows = 1;
  int64_t first = 0;
};

bool alike(const Tensors& one, const Tensors& other) {
  for (const auto& [name, tensor] : one) {
    const auto& peer = other.at(name).shape;
    if (!std::equal(
            tensor.shape.begin() + 1, tensor.shape.end(), peer.begin() + 1, peer.end()))
      return false;
  }
  return true;
}

class Model {
 public:
  Model(const std::string& graph, const nlohmann::json& config)
      : batched_(config.at("max_batch_size").get<int>() > 0) {
    Ort::SessionOptions options;
    if (pool() > 0)
      options.DisablePerSessionThreads();
    else
      options.SetIntraOpNumThreads(1);
    session_ = std::make_unique<Ort::Session>(environment(), graph.c_str(), options);
    Ort::AllocatorWithDefaultOptions allocator;
    for (size_t i = 0; i < session_->GetInputCount(); ++i)
      inputs_.emplace_back(session_->GetInputNameAllocated(i, allocator).get());
    for (size_t i = 0; i < session_->GetOutputCount(); ++i)
      outputs_.emplace_back(session_->GetOutputNameAllocated(i, allocator).get());
    for (const auto& state :
         config.value("sequence_batching", nlohmann::json::object())
             .value("state", nlohmann::json::array()))
      states_.insert(state.at("output_name").get<std::string>());
  }

  // Requests of the same shapes run together, others after each other.
  void run(std::vector<Call>& calls) {
    size_t start = 0;
    while (start < calls.size()) {
      size_t end = start + 1;
      while (batched_ && end < calls.size() && alike(calls[start].inputs, calls[end].inputs)) ++end;
      runTogether(calls, start, end);
      start = end;
    }
  }

  [[nodiscard]] bool batched() const { return batched_; }

 private:
  // Threads that all sessions share, as the real backend's enable-global-threadpool makes them; with
  // none every session has the one that calls it, so that sums have one order.
  static int pool() {
    const char* threads = std::getenv("STAND_IN_THREADS");
    return threads == nullptr ? 0 : std::atoi(threads);
  }

  static Ort::Env& environment() {
    static Ort::Env env = [] {
      if (pool() == 0) return Ort::Env(ORT_LOGGING_LEVEL_ERROR, "stand-in");
      Ort::ThreadingOptions threads;
      threads.SetGlobalIntraOpNumThreads(pool()).SetGlobalInterOpNumThreads(1);
      threads.SetGlobalSpinControl(0);
      return Ort::Env(threads, ORT_LOGGING_LEVEL_ERROR, "stand-in");
    }();
    return env;
  }

  void runTogether(std::vector<Call>& calls, size_t start, size_t end) {
    Tensors joined = calls[start].inputs;
    int64_t rows = calls[start].rows;
    for (size_t i = start + 1; i < end; ++i) {
      calls[i].first = rows;
      rows += calls[i].rows;
      for (auto& [name, tensor] : joined) {
        const Tensor& part = calls[i].inputs.at(name);
        tensor.bytes.insert(tensor.bytes.end(), part.bytes.begin(), part.bytes.end());
        tensor.shape[0] += part.shape[0];
      }
    }
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> values;
    std::vector<const char*> names, wanted;
    for (const auto& name : inputs_) {
      Tensor& tensor = joined.at(name);
      names.push_back(name.c_str());
      values.push_back(Ort::Value::CreateTensor(
          memory, tensor.bytes.data(), tensor.bytes.size(), tensor.shape.data(),
          tensor.shape.size(), ofTriton(tensor.dtype).onnx));
    }
    for (const auto& name : outputs_) wanted.push_back(name.c_str());
    auto found = session_->Run(
        Ort::RunOptions{nullptr}, names.data(), values.data(), values.size(), wanted.data(),
        wanted.size());
    for (size_t i = start; i < end; ++i) give(calls[i], found);
  }

  void give(Call& call, std::vector<Ort::Value>& found) {
    std::set<std::string> asked;
    uint32_t count = 0;
    check(TRITONBACKEND_RequestOutputCount(call.request, &count));
    for (uint32_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      check(TRITONBACKEND_RequestOutputName(call.request, i, &name));
      asked.insert(name);
    }
    check(TRITONBACKEND_ResponseNew(&call.response, call.request));
    for (size_t i = 0; i < found.size(); ++i) {
      const bool state = states_.count(outputs_[i]) > 0;
      if (state || asked.count(outputs_[i])) giveOne(call, outputs_[i], found[i], state);
    }
  }

  void giveOne(Call& call, const std::string& name, Ort::Value& value, bool state) {
    auto info = value.GetTensorTypeAndShapeInfo();
    auto shape = info.GetShape();
    const Kind& kind = ofOnnx(info.GetElementType());
    size_t offset = 0;
    if (batched_) {
      offset = elements(shape, 1) * kind.bytes * static_cast<size_t>(call.first);
      shape[0] = call.rows;
    }
    const size_t bytes = elements(shape) * kind.bytes;
    const auto dims = static_cast<uint32_t>(shape.size());
    void* buffer = nullptr;
    int memory = 0;
    int64_t id = 0;
    TRITONBACKEND_State* kept = nullptr;
    if (state) {
      check(TRITONBACKEND_StateNew(
          &kept, call.request, name.c_str(), kind.triton, shape.data(), dims));
      check(TRITONBACKEND_StateBuffer(kept, &buffer, bytes, &memory, &id));
    } else {
      TRITONBACKEND_Output* output = nullptr;
      check(TRITONBACKEND_ResponseOutput(
          call.response, &output, name.c_str(), kind.triton, shape.data(), dims));
      check(TRITONBACKEND_OutputBuffer(output, &buffer, bytes, &memory, &id));
    }
    if (bytes > 0) std::memcpy(buffer, value.GetTensorData<char>() + offset, bytes);
    if (state) check(TRITONBACKEND_StateUpdate(kept));
  }

  bool batched_;
  std::unique_ptr<Ort::Session> session_;
  std::vector<std::string> inputs_, outputs_;
  std::set<std::string> states_;
};

Model& modelOf(TRITONBACKEND_ModelInstance* instance, TRITONBACKEND_Model** handle = nullptr) {
  TRITONBACKEND_Model* model = nullptr;
  check(TRITONBACKEND_ModelInstanceModel(instance, &model));
  void* state = nullptr;
  check(TRITONBACKEND_ModelState(model, &state));
  if (handle != nullptr) *handle = model;
  return *static_cast<Model*>(state);
}

}  // namespace

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model* model) {
  return guarded([&] {
    TRITONSERVER_Message* message = nullptr;
    check(TRITONBACKEND_ModelConfig(model, 1, &message));
    const char* text = nullptr;
    size_t size = 0;
    check(TRITONSERVER_MessageSerializeToJson(message, &text, &size));
    const auto config = nlohmann::json::parse(text, text + size);
    check(TRITONSERVER_MessageDelete(message));
    int kind = 0;
    const char* folder = nullptr;
    uint64_t version = 0;
    check(TRITONBACKEND_ModelRepository(model, &kind, &folder));
    check(TRITONBACKEND_ModelVersion(model, &version));
    const std::string file = config.value("default_model_filename", "");
    const std::string path = std::string(folder) + "/" + std::to_string(version) + "/" +
                             (file.empty() ? "model.onnx" : file);
    auto made = std::make_unique<Model>(path, config);
    check(TRITONBACKEND_ModelSetState(model, made.get()));
    made.release();
  });
}

TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model* model) {
  return guarded([&] {
    void* state = nullptr;
    check(TRITONBACKEND_ModelState(model, &state));
    delete static_cast<Model*>(state);
  });
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(
    TRITONBACKEND_ModelInstance* instance, TRITONBACKEND_Request** requests, uint32_t count) {
  const uint64_t start = now();
  std::vector<Call> calls(count);
  uint64_t rows = 0, ran = start;
  std::string failure;
  try {
    Model& model = modelOf(instance);
    for (uint32_t i = 0; i < count; ++i) {
      calls[i].request = requests[i];
      calls[i].inputs = read(requests[i]);
      if (model.batched()) calls[i].rows = calls[i].inputs.begin()->second.shape.at(0);
      rows += static_cast<uint64_t>(calls[i].rows);
    }
    ran = now();
    model.run(calls);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  const uint64_t end = now();
  for (uint32_t i = 0; i < count; ++i) {
    TRITONSERVER_Error* error = nullptr;
    if (!failure.empty()) {
      if (calls[i].response == nullptr)
        TRITONBACKEND_ResponseNew(&calls[i].response, requests[i]);
      error = TRITONSERVER_ErrorNew(kInternal, failure.c_str());
    }
    TRITONBACKEND_ResponseSend(calls[i].response, kFinal, error);
    if (error != nullptr) TRITONSERVER_ErrorDelete(error);
    TRITONBACKEND_ModelInstanceReportStatistics(
        instance, requests[i], failure.empty(), start, ran, end, end);
    TRITONBACKEND_RequestRelease(requests[i], kAll);
  }
  TRITONBACKEND_ModelInstanceReportBatchStatistics(instance, rows, start, ran, end, end);
  return nullptr;
}

}  // extern "C"
