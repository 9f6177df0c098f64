// CUDA's resources as objects that give them back.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include "failure.hpp"

namespace sample {

inline void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    const bool absent = code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver;
    throw Failure(absent ? Exit::incapable : Exit::failed,
                  std::string(what) + ": " + cudaGetErrorString(code));
}

struct FreeDevice {
    void operator()(void* memory) const noexcept { cudaFree(memory); }
};
struct FreePinned {
    void operator()(void* memory) const noexcept { cudaFreeHost(memory); }
};

// Memory that grows when asked for more; what it held is not kept. Never null, so that an array
// without elements has an address too.
template <typename Free>
class Buffer {
public:
    Buffer() { reserve(1); }

    [[nodiscard]] void* get() const noexcept { return memory_.get(); }

    void reserve(std::size_t size) {
        if (size <= capacity_) return;
        memory_.reset();
        capacity_ = 0;
        void* memory = nullptr;
        if constexpr (std::is_same_v<Free, FreeDevice>) {
            check(cudaMalloc(&memory, size), "cudaMalloc");
        } else {
            check(cudaMallocHost(&memory, size), "cudaMallocHost");
        }
        memory_.reset(memory);
        capacity_ = size;
    }

private:
    std::unique_ptr<void, Free> memory_;
    std::size_t capacity_ = 0;
};

using DeviceBuffer = Buffer<FreeDevice>;
using PinnedBuffer = Buffer<FreePinned>;

class Stream {
public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }

    [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }
    void wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

private:
    cudaStream_t stream_ = nullptr;
};

struct DestroyGraph {
    void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
struct DestroyGraphExec {
    void operator()(cudaGraphExec_t graph) const noexcept { cudaGraphExecDestroy(graph); }
};
using Graph = std::unique_ptr<CUgraph_st, DestroyGraph>;
using GraphExec = std::unique_ptr<CUgraphExec_st, DestroyGraphExec>;

}  // namespace sample
