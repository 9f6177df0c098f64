// Launches of the kernels behind TopKGating, GroupedTopKGating and ExpertDispatch.
#include <cuda_runtime.h>

#include "checks.h"
#include "kernels.h"

namespace toolkit {
namespace {

enum { kLoneSlots = 4096 };  // more than these, and several blocks dispatch faster than one

template <class Scalar, int LANES, bool WHOLE>
__global__ void __launch_bounds__(kThreads)
    gate_fast_kernel(ToolkitGating gating, const void* logits, i64 tokens, float* weights,
                     i64* ids) {
    run_fast<Scalar, LANES, WHOLE>(gating, logits, tokens, weights, ids);
}

template <class Scalar>
__global__ void __launch_bounds__(kThreads)
    gate_grouped_kernel(ToolkitGating gating, const void* logits, const void* bias, int bias_type,
                        i64 tokens, float* weights, i64* ids) {
    run_grouped<Scalar>(gating, logits, bias, bias_type, tokens, weights, ids);
}

template <class Scalar>
__global__ void __launch_bounds__(kThreads)
    gate_general_kernel(ToolkitGating gating, const void* logits, const void* bias, int bias_type,
                        i64 tokens, float* weights, i64* ids) {
    run_general<Scalar>(gating, logits, bias, bias_type, tokens, weights, ids);
}

__global__ void dispatch_alone_kernel(int experts, int k, const i64* ids, int slots,
                                      i64* token_of_row, i64* row_of_slot, i64* offsets,
                                      unsigned char* active) {
    run_lone_dispatch(experts, k, ids, slots, token_of_row, row_of_slot, offsets, active);
}

// counts [E, segments].
__global__ void __launch_bounds__(kThreads)
    count_kernel(int experts, const i64* ids, int slots, int length, int segments, int* counts) {
    extern __shared__ int shared[];
    const int segment = blockIdx.x * kWarps + threadIdx.x / 32;
    if (segment >= segments) return;
    int* mine = shared + threadIdx.x / 32 * experts;
    const int begin = segment * length, end = begin + length < slots ? begin + length : slots;
    Lanes<32, SlotState> warp;
    count_segment(warp, ids, begin, end, experts, mine, 1);
    for (int e = threadIdx.x % 32; e < experts; e += 32)
        counts[static_cast<i64>(e) * segments + segment] = mine[e];
}

// One warp per expert: its counts become sums of those before, and totals [E] their sum.
__global__ void scan_kernel(int segments, int* counts, int* totals) {
    const int all = scan_by_warp(counts + static_cast<i64>(blockIdx.x) * segments, segments);
    if (threadIdx.x == 31) totals[blockIdx.x] = all;
}

__global__ void __launch_bounds__(kThreads)
    place_kernel(int experts, int k, const i64* ids, int slots, int length, int segments,
                 const int* counts, const int* totals, i64* token_of_row, i64* row_of_slot,
                 i64* offsets, unsigned char* active) {
    extern __shared__ int shared[];
    int* starts = shared;
    for (int e = threadIdx.x; e < experts; e += kThreads) starts[e] = totals[e];
    __syncthreads();
    if (threadIdx.x < 32) scan_by_warp(starts, experts);
    __syncthreads();
    if (blockIdx.x == 0) write_offsets(starts, experts, slots, offsets, active);
    const int segment = blockIdx.x * kWarps + threadIdx.x / 32;
    if (segment >= segments) return;
    int* next = shared + experts * (1 + threadIdx.x / 32);
    for (int e = threadIdx.x % 32; e < experts; e += 32)
        next[e] = starts[e] + counts[static_cast<i64>(e) * segments + segment];
    __syncwarp();
    const int begin = segment * length, end = begin + length < slots ? begin + length : slots;
    Lanes<32, SlotState> warp;
    place_segment(warp, ids, begin, end, experts, k, next, 1, token_of_row, row_of_slot);
}

__global__ void padded_kernel(int experts, const i64* token_of_row, const i64* offsets,
                              int capacity, i64* table) {
    const i64 cell = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
    if (cell >= static_cast<i64>(experts) * capacity) return;
    table[cell] = padded_cell(token_of_row, offsets, static_cast<int>(cell / capacity),
                              static_cast<int>(cell % capacity));
}

unsigned blocks_for(i64 items, int each) { return static_cast<unsigned>((items + each - 1) / each); }

int launched() { return cudaGetLastError() == cudaSuccess ? TOOLKIT_OK : TOOLKIT_LAUNCH_FAILED; }

// What a gating reads and writes.
struct Call {
    const void* logits;
    const void* bias;
    int bias_type;
    i64 tokens;
    float* weights;
    i64* ids;
    cudaStream_t stream;
};

template <class Scalar, int LANES>
void launch_fast(const ToolkitGating& g, const Call& c) {
    const unsigned blocks = blocks_for(c.tokens * LANES, kThreads);
    if (g.normalize)
        gate_fast_kernel<Scalar, LANES, false><<<blocks, kThreads, 0, c.stream>>>(
            g, c.logits, c.tokens, c.weights, c.ids);
    else
        gate_fast_kernel<Scalar, LANES, true><<<blocks, kThreads, 0, c.stream>>>(
            g, c.logits, c.tokens, c.weights, c.ids);
}

template <class Scalar>
void launch(const ToolkitGating& g, const Call& c) {
    const int path = path_of(g), warps = general_warps(g.num_experts);
    if (path == 1) {
        gate_grouped_kernel<Scalar><<<blocks_for(c.tokens, kWarps), kThreads, 0, c.stream>>>(
            g, c.logits, c.bias, c.bias_type, c.tokens, c.weights, c.ids);
    } else if (path == 2) {
        gate_general_kernel<Scalar><<<blocks_for(c.tokens, warps), warps * 32,
                                      warps * board_bytes(g.num_experts), c.stream>>>(
            g, c.logits, c.bias, c.bias_type, c.tokens, c.weights, c.ids);
    } else {
        switch (lanes_for(g.num_experts)) {
            case 1: return launch_fast<Scalar, 1>(g, c);
            case 2: return launch_fast<Scalar, 2>(g, c);
            case 4: return launch_fast<Scalar, 4>(g, c);
            default: return launch_fast<Scalar, 8>(g, c);
        }
    }
}

}  // namespace
}  // namespace toolkit

using namespace toolkit;

static const i64* wide(const int64_t* p) { return reinterpret_cast<const i64*>(p); }
static i64* wide(int64_t* p) { return reinterpret_cast<i64*>(p); }

extern "C" int toolkit_gating_path(const ToolkitGating* gating) {
    return valid(gating) ? path_of(*gating) : -1;
}

extern "C" int toolkit_gating(const ToolkitGating* g, int type, const void* logits,
                              const void* bias, int bias_type, int64_t tokens, float* weights,
                              int64_t* ids, ToolkitStream stream) {
    const int status = check_gating(g, type, bias_type, tokens);
    if (status != TOOLKIT_OK || tokens == 0) return status;
    const Call call = {logits, bias, bias_type, tokens, weights, wide(ids), stream};
    if (type == TOOLKIT_FLOAT32)
        launch<Float32>(*g, call);
    else if (type == TOOLKIT_FLOAT16)
        launch<Float16>(*g, call);
    else
        launch<Bfloat16>(*g, call);
    return launched();
}

extern "C" size_t toolkit_dispatch_workspace(int experts, int64_t slots) {
    if (experts < 1 || slots <= kLoneSlots || slots > 0x7fffffff) return 0;
    const size_t rows = static_cast<size_t>(segments_of(static_cast<int>(slots))) + 1;
    return rows * experts * sizeof(int);
}

extern "C" int toolkit_dispatch(int experts, int k, const int64_t* ids, int64_t tokens,
                                int64_t* token_of_row, int64_t* row_of_slot, int64_t* offsets,
                                unsigned char* active, void* workspace, ToolkitStream stream) {
    const int status = check_dispatch(experts, k, tokens);
    if (status != TOOLKIT_OK) return status;
    const int slots = static_cast<int>(tokens * k);
    if (slots <= kLoneSlots) {
        dispatch_alone_kernel<<<1, lone_warps(experts) * 32, lone_bytes(experts), stream>>>(
            experts, k, wide(ids), slots, wide(token_of_row), wide(row_of_slot), wide(offsets),
            active);
        return launched();
    }
    const int length = segment_length(slots), segments = segments_of(slots);
    const unsigned blocks = blocks_for(segments, kWarps);
    const int row = experts * static_cast<int>(sizeof(int));
    int* totals = static_cast<int*>(workspace);
    int* counts = totals + experts;
    count_kernel<<<blocks, kThreads, kWarps * row, stream>>>(experts, wide(ids), slots, length,
                                                             segments, counts);
    scan_kernel<<<experts, 32, 0, stream>>>(segments, counts, totals);
    place_kernel<<<blocks, kThreads, (kWarps + 1) * row, stream>>>(
        experts, k, wide(ids), slots, length, segments, counts, totals, wide(token_of_row),
        wide(row_of_slot), wide(offsets), active);
    return launched();
}

extern "C" int toolkit_padded_rows(int experts, const int64_t* token_of_row, const int64_t* offsets,
                                   int64_t capacity, int64_t* table, ToolkitStream stream) {
    if (experts < 1 || experts > TOOLKIT_MAX_EXPERTS) return TOOLKIT_BAD_ATTRIBUTE;
    if (capacity < 0 || capacity * experts > 0x7fffffff) return TOOLKIT_BAD_SIZE;
    if (capacity == 0) return TOOLKIT_OK;
    padded_kernel<<<blocks_for(capacity * experts, kThreads), kThreads, 0, stream>>>(
        experts, wide(token_of_row), wide(offsets), static_cast<int>(capacity), wide(table));
    return launched();
}
