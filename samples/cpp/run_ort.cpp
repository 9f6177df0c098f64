// Runs a bundle's model.onnx in ONNX Runtime. README.md goes through it step by step.
//
// The library is loaded when the program runs, and any release from the headers' on will do: ONNX
// Runtime keeps its C API, while a program that is linked asks for the very version it was linked
// with. So ORT_API_MANUAL_INIT comes before the include, and Ort::InitApi before everything else.
#define ORT_API_MANUAL_INIT
#include <dlfcn.h>
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "failure.hpp"
#include "program.hpp"

namespace {

using namespace sample;

constexpr std::array<std::pair<ONNXTensorElementDataType, const char*>, 9> dtypes{{
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, "bool"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, "int8"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "uint8"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, "int16"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "int64"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "float16"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float32"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "float64"},
}};

std::string name_of(ONNXTensorElementDataType type) {
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16) return "bfloat16";
    for (const auto& [known, name] : dtypes) {
        if (known == type) return name;
    }
    return "ONNX type " + std::to_string(type);
}

ONNXTensorElementDataType type_of(const std::string& dtype) {
    for (const auto& [type, name] : dtypes) {
        if (dtype == name) return type;
    }
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

// Loads the library and returns its version. It stays loaded to the end of the process: its
// threads and static objects do not survive being unloaded.
std::string load_library(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        throw Failure(Exit::incapable, std::string("ONNX Runtime cannot be loaded: ") + dlerror(),
                      "--library FILE or ONNXRUNTIME_LIBRARY names its libonnxruntime.so");
    }
    using Entry = const OrtApiBase* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(library, "OrtGetApiBase"));
    if (entry == nullptr) throw Failure(Exit::incapable, path + " is not ONNX Runtime");
    const OrtApiBase* base = entry();
    const OrtApi* api = base->GetApi(ORT_API_VERSION);
    if (api == nullptr) {
        throw Failure(Exit::incapable, path + " is ONNX Runtime " + base->GetVersionString() +
                                           ", wanted 1." + std::to_string(ORT_API_VERSION) + " or later");
    }
    Ort::InitApi(api);
    return base->GetVersionString();
}

// dtypes by name, of the session's inputs or outputs
template <typename Count, typename Name, typename Type>
std::map<std::string, std::string> interface_of(Count count, Name name, Type type) {
    std::map<std::string, std::string> found;
    for (std::size_t i = 0; i < count(); ++i) {
        found[name(i)] = name_of(type(i).GetTensorTypeAndShapeInfo().GetElementType());
    }
    return found;
}

void check_interface(const Manifest& manifest, const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto input_name = [&](std::size_t i) { return std::string(session.GetInputNameAllocated(i, allocator).get()); };
    const auto output_name = [&](std::size_t i) { return std::string(session.GetOutputNameAllocated(i, allocator).get()); };
    hold_against(manifest.inputs,
                 interface_of([&] { return session.GetInputCount(); }, input_name,
                              [&](std::size_t i) { return session.GetInputTypeInfo(i); }),
                 "input", "model.onnx");
    hold_against(manifest.outputs,
                 interface_of([&] { return session.GetOutputCount(); }, output_name,
                              [&](std::size_t i) { return session.GetOutputTypeInfo(i); }),
                 "output", "model.onnx");
}

// A session may be run by many threads at once, so workers share it.
class OrtWorker final : public Worker {
public:
    OrtWorker(Ort::Session& session, const Manifest& manifest, const Tensors& feeds)
        : session_(session), memory_(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)) {
        for (const TensorInfo& info : manifest.inputs) {
            const Tensor& feed = feeds.at(info.name);
            input_names_.push_back(info.name.c_str());
            // The value looks at the feed's memory, which ONNX Runtime only reads. Empty arrays,
            // such as the caches before a first step, need an address all the same.
            static std::byte nothing;
            void* data = feed.bytes.empty() ? &nothing : const_cast<std::byte*>(feed.bytes.data());
            inputs_.push_back(Ort::Value::CreateTensor(memory_, data, feed.bytes.size(), feed.shape.data(),
                                                       feed.shape.size(), type_of(feed.dtype)));
        }
        for (const TensorInfo& info : manifest.outputs) output_names_.push_back(info.name.c_str());
    }

    void run() override {
        outputs_ = session_.Run(Ort::RunOptions{nullptr}, input_names_.data(), inputs_.data(), inputs_.size(),
                                output_names_.data(), output_names_.size());
    }

    [[nodiscard]] Tensors outputs() const override {
        Tensors found;
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            const auto info = outputs_[i].GetTensorTypeAndShapeInfo();
            Tensor tensor{name_of(info.GetElementType()), info.GetShape(), {}};
            tensor.bytes.resize(byte_size(tensor.dtype, tensor.shape));
            if (!tensor.bytes.empty()) {
                std::memcpy(tensor.bytes.data(), outputs_[i].GetTensorRawData(), tensor.bytes.size());
            }
            found.emplace(output_names_[i], std::move(tensor));
        }
        return found;
    }

private:
    Ort::Session& session_;
    Ort::MemoryInfo memory_;
    std::vector<const char*> input_names_;  // of the manifest, which outlives the workers
    std::vector<const char*> output_names_;
    std::vector<Ort::Value> inputs_;
    std::vector<Ort::Value> outputs_;
};

void run(const Arguments& arguments) {
    const Manifest manifest = read_manifest(arguments.bundle());
    const Tensors feeds = read_feeds(manifest, arguments.feeds());
    const int threads = arguments.number("--threads", 0, 0);
    const int count = arguments.number("--workers", 1, 1);

    const char* named = std::getenv("ONNXRUNTIME_LIBRARY");
    const std::string library = named != nullptr ? named : "libonnxruntime.so.1";
    const std::string version = load_library(arguments.text("--library", library));

    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "run_ort");
    Ort::SessionOptions options;  // optimisations are on by default, as in Python
    options.SetIntraOpNumThreads(threads);
    // Opened by its path: model.onnx finds its weights in model.onnx.data beside it.
    Ort::Session session(environment, (manifest.folder / "model.onnx").c_str(), options);
    check_interface(manifest, session);

    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < count; ++i) workers.push_back(std::make_unique<OrtWorker>(session, manifest, feeds));
    drive(arguments, manifest, "onnxruntime " + version, workers);
}

}  // namespace

int main(int argc, char** argv) {
    return guarded([&] {
        const Arguments arguments(argc, argv, "Runs a bundle's model.onnx in ONNX Runtime on the CPU.", {
            {"--threads", "N", "threads that ONNX Runtime runs one operator with; 0: one per core [0]"},
            {"--library", "FILE", "ONNX Runtime [ONNXRUNTIME_LIBRARY, else libonnxruntime.so.1]"},
        });
        if (arguments.flag("--help")) {
            std::cout << arguments.usage();
        } else {
            run(arguments);
        }
    });
}
