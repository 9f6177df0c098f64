// The kernels' code on the host, a token at a time: what the tests without a GPU run.
#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "general.h"

namespace toolkit {
namespace {

// Where a gating's outputs for one token go.
struct Token {
    float* weights;
    i64* ids;
};

template <class Scalar, int LANES, bool WHOLE>
void fast(const ToolkitGating& g, const typename Scalar::Stored* row, Token token) {
    Lanes<LANES, FastState<Scalar>> warp;
    gate_fast<Scalar, LANES, WHOLE>(warp, g, row, false, true, token.weights, token.ids);
}

template <class Scalar, int LANES>
void fast(const ToolkitGating& g, const typename Scalar::Stored* row, Token token) {
    if (g.normalize)
        fast<Scalar, LANES, false>(g, row, token);
    else
        fast<Scalar, LANES, true>(g, row, token);
}

template <class Scalar>
void gate(const ToolkitGating& g, const typename Scalar::Stored* row, const void* bias,
          int bias_type, int path, Token token) {
    if (path == 1) {
        Lanes<32, GroupedState> warp;
        gate_grouped<Scalar>(warp, g, row, false, bias, bias_type, token.weights, token.ids);
    } else if (path == 2) {
        std::vector<float> values(g.num_experts);
        std::vector<u32> orders(g.num_experts), groups(g.num_experts);
        const Board board = {values.data(), orders.data(), groups.data()};
        Lanes<32, GeneralState> warp;
        gate_general<Scalar>(warp, g, row, bias, bias_type, board, token.weights, token.ids);
    } else {
        switch (lanes_for(g.num_experts)) {
            case 1: return fast<Scalar, 1>(g, row, token);
            case 2: return fast<Scalar, 2>(g, row, token);
            case 4: return fast<Scalar, 4>(g, row, token);
            default: return fast<Scalar, 8>(g, row, token);
        }
    }
}

template <class Scalar>
void gate_all(const ToolkitGating& g, const void* logits, const void* bias, int bias_type,
              i64 tokens, int path, float* weights, i64* ids) {
    for (i64 t = 0; t < tokens; ++t) {
        const auto* row = static_cast<const typename Scalar::Stored*>(logits) + t * g.num_experts;
        gate<Scalar>(g, row, bias, bias_type, path, {weights + t * g.k, ids + t * g.k});
    }
}

}  // namespace
}  // namespace toolkit

using namespace toolkit;

extern "C" int toolkit_gating_path(const ToolkitGating* gating) {
    return valid(gating) ? path_of(*gating) : -1;
}

extern "C" int host_gating(const ToolkitGating* g, int type, const void* logits, const void* bias,
                           int bias_type, int64_t tokens, float* weights, int64_t* ids, int path) {
    const int status = check_gating(g, type, bias_type, tokens);
    if (status != TOOLKIT_OK) return status;
    if (path < 0) path = path_of(*g);
    if (path != 2 && path != path_of(*g)) return TOOLKIT_BAD_ATTRIBUTE;
    auto* to = reinterpret_cast<i64*>(ids);
    if (type == TOOLKIT_FLOAT32)
        gate_all<Float32>(*g, logits, bias, bias_type, tokens, path, weights, to);
    else if (type == TOOLKIT_FLOAT16)
        gate_all<Float16>(*g, logits, bias, bias_type, tokens, path, weights, to);
    else
        gate_all<Bfloat16>(*g, logits, bias, bias_type, tokens, path, weights, to);
    return TOOLKIT_OK;
}

extern "C" int host_dispatch(int experts, int k, const int64_t* ids, int64_t tokens,
                             int64_t* token_of_row, int64_t* row_of_slot, int64_t* offsets,
                             unsigned char* active) {
    const int status = check_dispatch(experts, k, tokens);
    if (status != TOOLKIT_OK) return status;
    const int slots = static_cast<int>(tokens * k), length = segment_length(slots);
    const int segments = segments_of(slots);
    const auto* from = reinterpret_cast<const i64*>(ids);
    std::vector<int> counts(static_cast<size_t>(experts) * segments);  // [E, segments]
    Lanes<32, SlotState> warp;
    for (int s = 0; s < segments; ++s) {
        const int begin = s * length, end = begin + length < slots ? begin + length : slots;
        count_segment(warp, from, begin, end, experts, counts.data() + s, segments);
    }
    int row = 0;
    for (int e = 0; e < experts; ++e) {
        offsets[e] = row;
        for (int s = 0; s < segments; ++s) {
            int& count = counts[static_cast<size_t>(e) * segments + s];
            const int first = row;
            row += count;
            count = first;
        }
        active[e] = row > offsets[e];
    }
    offsets[experts] = row;
    for (int s = 0; s < segments; ++s) {
        const int begin = s * length, end = begin + length < slots ? begin + length : slots;
        place_segment(warp, from, begin, end, experts, k, counts.data() + s, segments,
                      reinterpret_cast<i64*>(token_of_row), reinterpret_cast<i64*>(row_of_slot));
    }
    return TOOLKIT_OK;
}

extern "C" int host_padded_rows(int experts, const int64_t* token_of_row, const int64_t* offsets,
                                int64_t capacity, int64_t* table) {
    if (experts < 1 || experts > TOOLKIT_MAX_EXPERTS) return TOOLKIT_BAD_ATTRIBUTE;
    if (capacity < 0 || capacity * experts > 0x7fffffff) return TOOLKIT_BAD_SIZE;
    for (int e = 0; e < experts; ++e)
        for (int c = 0; c < capacity; ++c)
            table[e * capacity + c] =
                padded_cell(reinterpret_cast<const i64*>(token_of_row),
                            reinterpret_cast<const i64*>(offsets), e, c);
    return TOOLKIT_OK;
}
