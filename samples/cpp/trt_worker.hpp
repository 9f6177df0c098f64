// One thread's share of an engine: a context, a stream, memory for every input and output.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "cuda_memory.hpp"
#include "manifest.hpp"
#include "program.hpp"

namespace sample {

// NumPy's name of a type; throws Failure (unusable) for one that neither NumPy nor ONNX has.
std::string name_of(nvinfer1::DataType type);

// TensorRT asks for an output's memory here when the values decide how large it is.
class OutputAllocator final : public nvinfer1::IOutputAllocator {
public:
    explicit OutputAllocator(DeviceBuffer& memory) : memory_(memory) {}

    void* reallocateOutputAsync(char const* name, void* current, std::uint64_t size, std::uint64_t alignment,
                                cudaStream_t stream) noexcept override;
    void notifyShape(char const*, nvinfer1::Dims const& dims) noexcept override { dims_ = dims; }

    [[nodiscard]] const nvinfer1::Dims& dims() const noexcept { return dims_; }

private:
    DeviceBuffer& memory_;
    nvinfer1::Dims dims_{};
};

class TrtWorker final : public Worker {
public:
    // Throws Failure: unusable when the profile does not take the feeds' shapes.
    TrtWorker(nvinfer1::ICudaEngine& engine, const Manifest& manifest, const Tensors& feeds, int profile);
    ~TrtWorker() override;

    // From now on runs launch what one run enqueued, in one call. Returns why that cannot be, or "".
    std::string capture();

    void run() override;
    [[nodiscard]] Tensors outputs() const override;

private:
    struct Binding {
        std::string name;
        bool on_host;  // a shape tensor: TensorRT reads or writes it on the host
        std::string dtype;
        std::vector<std::int64_t> shape;
        PinnedBuffer host;
        DeviceBuffer device;
        std::unique_ptr<OutputAllocator> allocator;  // of an output whose shape depends on values
    };

    void set_input(const TensorInfo& info, const Tensor& feed);
    void set_output(const TensorInfo& info);
    Binding& bind(const TensorInfo& info);
    void enqueue();

    nvinfer1::ICudaEngine& engine_;
    Stream stream_;
    // Before the context, which holds their addresses and is destroyed first.
    std::vector<std::unique_ptr<Binding>> inputs_;
    std::vector<std::unique_ptr<Binding>> outputs_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    GraphExec graph_;
};

}  // namespace sample
