// The kernels, without their launches: kernel.cu compiles them for a library, aot.cu into PTX.
#pragma once

#include "dispatch.h"
#include "general.h"

namespace toolkit {

enum { kThreads = 128, kWarps = kThreads / 32 };  // of a block of gating

// A block's warps in the general gating, whose boards share 48 KiB.
TOOLKIT_BOTH int general_warps(int experts) { return experts <= 512 ? kWarps : kWarps / 2; }
TOOLKIT_BOTH int board_bytes(int experts) { return experts * 12; }

// A block's warps where one block dispatches alone: they and a row of sums share 48 KiB.
TOOLKIT_BOTH int lone_warps(int experts) {
    const int most = 12288 / experts - 1;
    return most < 32 ? most : 32;
}
TOOLKIT_BOTH int lone_bytes(int experts) { return (lone_warps(experts) + 1) * experts * 4; }

// Whether rows of logits can be read as 16-byte words.
TOOLKIT_BOTH bool rows_aligned(const void* logits, int row_bytes) {
    return ((reinterpret_cast<u64>(logits) | static_cast<u64>(row_bytes)) & 15) == 0;
}

template <class Scalar, int LANES, bool WHOLE>
__device__ __forceinline__ void run_fast(const ToolkitGating& gating, const void* logits,
                                         i64 tokens, float* weights, i64* ids) {
    using Stored = typename Scalar::Stored;
    const i64 token = (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) / LANES;
    const bool live = token < tokens;
    if (tokens == 0) return;  // there is no first token, which idle lanes would read
    const i64 at = live ? token : 0;
    const int experts = gating.num_experts;
    const bool aligned =
        rows_aligned(logits, experts * static_cast<int>(sizeof(Stored))) && experts % 8 == 0;
    Lanes<LANES, FastState<Scalar>> warp;
    gate_fast<Scalar, LANES, WHOLE>(warp, gating, static_cast<const Stored*>(logits) + at * experts,
                                    aligned, live, weights + at * gating.k, ids + at * gating.k);
}

template <class Scalar>
__device__ __forceinline__ void run_grouped(const ToolkitGating& gating, const void* logits,
                                            const void* bias, int bias_type, i64 tokens,
                                            float* weights, i64* ids) {
    using Stored = typename Scalar::Stored;
    const i64 token = static_cast<i64>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (token >= tokens) return;  // all of a warp at once
    const int experts = gating.num_experts;
    const bool aligned =
        rows_aligned(logits, experts * static_cast<int>(sizeof(Stored))) && experts % 8 == 0;
    Lanes<32, GroupedState> warp;
    gate_grouped<Scalar>(warp, gating, static_cast<const Stored*>(logits) + token * experts,
                         aligned, bias, bias_type, weights + token * gating.k,
                         ids + token * gating.k);
}

template <class Scalar>
__device__ __forceinline__ void run_general(const ToolkitGating& gating, const void* logits,
                                            const void* bias, int bias_type, i64 tokens,
                                            float* weights, i64* ids) {
    extern __shared__ int shared[];
    const int experts = gating.num_experts, warps = blockDim.x / 32, mine = threadIdx.x / 32;
    const i64 token = static_cast<i64>(blockIdx.x) * warps + mine;
    if (token >= tokens) return;
    int* board = shared + mine * experts * 3;
    Lanes<32, GeneralState> warp;
    gate_general<Scalar>(
        warp, gating,
        static_cast<const typename Scalar::Stored*>(logits) + token * experts, bias, bias_type,
        Board{reinterpret_cast<float*>(board), reinterpret_cast<u32*>(board) + experts,
              reinterpret_cast<u32*>(board) + experts * 2},
        weights + token * gating.k, ids + token * gating.k);
}

// values[i] becomes the sum of those before it; gives the sum of all in lane 31. One warp.
__device__ __forceinline__ int scan_by_warp(int* values, int count) {
    const int lane = threadIdx.x % 32, each = (count + 31) / 32;
    const int begin = lane * each < count ? lane * each : count;
    const int end = begin + each < count ? begin + each : count;
    int mine = 0;
    for (int i = begin; i < end; ++i) mine += values[i];
    int through = mine;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, through, distance);
        if (lane >= distance) through += below;
    }
    int before = through - mine;
    for (int i = begin; i < end; ++i) {
        const int value = values[i];
        values[i] = before;
        before += value;
    }
    return through;
}

// offsets [E + 1] and active [E], of where each expert's rows start.
__device__ __forceinline__ void write_offsets(const int* starts, int experts, int slots,
                                              i64* offsets, unsigned char* active) {
    for (int e = threadIdx.x; e <= experts; e += blockDim.x) {
        offsets[e] = e < experts ? starts[e] : slots;
        if (e < experts) active[e] = (e + 1 < experts ? starts[e + 1] : slots) > starts[e];
    }
}

// The whole dispatch in one block, each warp walking one segment.
__device__ __forceinline__ void run_lone_dispatch(int experts, int k, const i64* ids, int slots,
                                                  i64* token_of_row, i64* row_of_slot,
                                                  i64* offsets, unsigned char* active) {
    extern __shared__ int shared[];
    const int warps = blockDim.x / 32, mine = threadIdx.x / 32;
    int* starts = shared;
    int* counts = shared + experts * (mine + 1);
    const int length = ((slots + warps - 1) / warps + 31) / 32 * 32;
    const int begin = mine * length < slots ? mine * length : slots;
    const int end = begin + length < slots ? begin + length : slots;
    Lanes<32, SlotState> warp;
    count_segment(warp, ids, begin, end, experts, counts, 1);
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        int before = 0;
        for (int w = 1; w <= warps; ++w) {
            const int count = shared[experts * w + e];
            shared[experts * w + e] = before;
            before += count;
        }
        starts[e] = before;
    }
    __syncthreads();
    if (mine == 0) scan_by_warp(starts, experts);
    __syncthreads();
    write_offsets(starts, experts, slots, offsets, active);
    for (int e = threadIdx.x % 32; e < experts; e += 32) counts[e] += starts[e];
    __syncwarp();
    place_segment(warp, ids, begin, end, experts, k, counts, 1, token_of_row, row_of_slot);
}

}  // namespace toolkit
