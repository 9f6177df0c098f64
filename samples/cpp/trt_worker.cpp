#include "trt_worker.hpp"

#include <algorithm>
#include <cstring>

namespace sample {
namespace {

std::vector<std::int64_t> sizes_of(const nvinfer1::Dims& dims) {
    return {dims.d, dims.d + std::max(dims.nbDims, 0)};
}

bool known(const nvinfer1::Dims& dims) {
    return dims.nbDims >= 0 && std::none_of(dims.d, dims.d + dims.nbDims, [](auto size) { return size < 0; });
}

void require(bool done, const std::string& what) {
    if (!done) throw Failure(Exit::failed, "TensorRT refused " + what + "; its message is above");
}

}  // namespace

std::string name_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return "float32";
        case nvinfer1::DataType::kHALF: return "float16";
        case nvinfer1::DataType::kBF16: return "bfloat16";
        case nvinfer1::DataType::kINT8: return "int8";
        case nvinfer1::DataType::kINT32: return "int32";
        case nvinfer1::DataType::kINT64: return "int64";
        case nvinfer1::DataType::kUINT8: return "uint8";
        case nvinfer1::DataType::kBOOL: return "bool";
        default:
            throw Failure(Exit::unusable, "the engine has TensorRT type " + std::to_string(static_cast<int>(type)) +
                                              " at its border, which NumPy does not have");
    }
}

void* OutputAllocator::reallocateOutputAsync(char const*, void*, std::uint64_t size, std::uint64_t,
                                             cudaStream_t) noexcept {
    // cudaMalloc aligns to 256 bytes, which is what TensorRT asks for. What the last run wrote has
    // been copied by now: a run ends by waiting for the stream.
    try {
        memory_.reserve(size);
        return memory_.get();
    } catch (const Failure&) {
        return nullptr;  // TensorRT reports it, and enqueueV3 returns false
    }
}

TrtWorker::TrtWorker(nvinfer1::ICudaEngine& engine, const Manifest& manifest, const Tensors& feeds, int profile)
    : engine_(engine), context_(engine.createExecutionContext()) {
    require(context_ != nullptr, "a context");
    require(context_->setOptimizationProfileAsync(profile, stream_.get()), "profile " + std::to_string(profile));
    stream_.wait();
    for (const TensorInfo& info : manifest.inputs) set_input(info, feeds.at(info.name));
    // Not before every input has its shape and every shape tensor its values.
    for (const TensorInfo& info : manifest.outputs) set_output(info);
}

TrtWorker::~TrtWorker() { cudaStreamSynchronize(stream_.get()); }

TrtWorker::Binding& TrtWorker::bind(const TensorInfo& info) {
    const bool input = engine_.getTensorIOMode(info.name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
    auto& list = input ? inputs_ : outputs_;
    list.push_back(std::make_unique<Binding>());
    Binding& binding = *list.back();
    binding.name = info.name;
    binding.dtype = info.dtype;
    binding.on_host = engine_.getTensorLocation(info.name.c_str()) == nvinfer1::TensorLocation::kHOST;
    return binding;
}

void TrtWorker::set_input(const TensorInfo& info, const Tensor& feed) {
    Binding& binding = bind(info);
    const char* name = binding.name.c_str();
    nvinfer1::Dims dims{};
    if (feed.shape.size() > static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS)) {
        throw Failure(Exit::unusable, info.name + " has more dimensions than TensorRT takes");
    }
    dims.nbDims = static_cast<std::int32_t>(feed.shape.size());
    std::copy(feed.shape.begin(), feed.shape.end(), dims.d);
    if (!context_->setInputShape(name, dims)) {
        throw Failure(Exit::unusable, info.name + " is " + describe(feed.dtype, feed.shape) +
                                          ", which the engine's profile does not take",
                      "--profile N chooses another; toolkit inspect shows them");
    }
    binding.shape = feed.shape;
    binding.host.reserve(feed.bytes.size());
    std::copy(feed.bytes.begin(), feed.bytes.end(), static_cast<std::byte*>(binding.host.get()));
    binding.device.reserve(feed.bytes.size());
    void* address = binding.on_host ? binding.host.get() : binding.device.get();
    require(context_->setTensorAddress(name, address), "the address of " + info.name);
}

void TrtWorker::set_output(const TensorInfo& info) {
    Binding& binding = bind(info);
    const char* name = binding.name.c_str();
    const nvinfer1::Dims dims = context_->getTensorShape(name);
    if (!known(dims)) {
        binding.allocator = std::make_unique<OutputAllocator>(binding.device);
        require(context_->setOutputAllocator(name, binding.allocator.get()), "an allocator for " + info.name);
        return;
    }
    binding.shape = sizes_of(dims);
    const std::size_t size = byte_size(binding.dtype, binding.shape);
    binding.host.reserve(size);
    binding.device.reserve(size);
    void* address = binding.on_host ? binding.host.get() : binding.device.get();
    require(context_->setTensorAddress(name, address), "the address of " + info.name);
}

void TrtWorker::enqueue() { require(context_->enqueueV3(stream_.get()), "to run"); }

std::string TrtWorker::capture() {
    for (const auto& output : outputs_) {
        if (output->allocator) return "the size of " + output->name + " depends on values";
    }
    run();  // the first run after a change of shapes does work that cannot be captured
    cudaGraph_t raw = nullptr;
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    const bool enqueued = context_->enqueueV3(stream_.get());
    const cudaError_t ended = cudaStreamEndCapture(stream_.get(), &raw);
    const Graph graph(raw);
    if (!enqueued || ended != cudaSuccess) {
        cudaGetLastError();  // the failed capture is no failure of the next call
        return "this engine does something that a stream cannot capture";
    }
    cudaGraphExec_t made = nullptr;
    check(cudaGraphInstantiateWithFlags(&made, graph.get(), 0), "cudaGraphInstantiate");
    graph_.reset(made);
    return "";
}

void TrtWorker::run() {
    for (const auto& input : inputs_) {
        if (input->on_host) continue;
        check(cudaMemcpyAsync(input->device.get(), input->host.get(), byte_size(input->dtype, input->shape),
                              cudaMemcpyHostToDevice, stream_.get()), "cudaMemcpyAsync");
    }
    if (graph_) {
        check(cudaGraphLaunch(graph_.get(), stream_.get()), "cudaGraphLaunch");
    } else {
        enqueue();
    }
    for (const auto& output : outputs_) {
        if (output->allocator) output->shape = sizes_of(output->allocator->dims());  // known once enqueued
        if (output->on_host) continue;
        const std::size_t size = byte_size(output->dtype, output->shape);
        output->host.reserve(size);
        check(cudaMemcpyAsync(output->host.get(), output->device.get(), size, cudaMemcpyDeviceToHost,
                              stream_.get()), "cudaMemcpyAsync");
    }
    stream_.wait();
}

Tensors TrtWorker::outputs() const {
    Tensors found;
    for (const auto& output : outputs_) {
        Tensor tensor{output->dtype, output->shape, {}};
        const auto* begin = static_cast<const std::byte*>(output->host.get());
        tensor.bytes.assign(begin, begin + byte_size(tensor.dtype, tensor.shape));
        found.emplace(output->name, std::move(tensor));
    }
    return found;
}

}  // namespace sample
