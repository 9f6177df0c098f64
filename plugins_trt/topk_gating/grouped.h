// Logits of one token in, weights and ids of its k experts out: GroupedTopKGating on the fast path.
//
// For E <= 256, k <= 8, and no groups, or groups of 8, 16, 32, ... experts of which the best one or
// two count. One warp: each lane scores eight experts that stand beside each other and sorts them;
// lanes of a group find what it is worth; then the best head of the lanes' lists is taken k times.
//
// Experts are chosen by float32: a score rounded once, and rounded again with its bias. Weights are
// made of the scores before they are rounded, and rounded once. A score below 2^-126 is 0.
#pragma once

#include "gating.h"

namespace toolkit {

TOOLKIT_BOTH bool fits_grouped(const ToolkitGating& gating) {
    const int size = gating.num_experts / gating.groups, lanes = size / 8;
    const bool plain = gating.groups == 1;
    const bool even = size % 8 == 0 && (lanes & (lanes - 1)) == 0 && gating.group_top <= 2;
    return gating.num_experts <= kFastExperts && gating.k <= kFastK && (plain || even);
}

// The lowest finite float32: what experts of other groups are worth, as the contract has it.
TOOLKIT_BOTH u32 shut_order() { return order_of(-3.4028234663852886e38f); }

struct Best {
    u32 first, second;
};

struct GroupedState {
    float logits[8];
    Pair scores[8];
    u64 keys[8];      // sorted by biased score
    u32 peak;
    Pair mass;
    Best group;
    int rank;  // how many groups are better
    Pair chosen;
    int id;
};

// Scores of all lanes' eight experts.
template <class Warp>
TOOLKIT_BOTH void score_eight(Warp& warp, bool sigmoids, int experts) {
    if (sigmoids) {
        warp.each([&](int, auto& s) {
            TOOLKIT_UNROLL
            for (int i = 0; i < 8; ++i) s.scores[i] = sigmoid(s.logits[i]);
        });
        return;
    }
    warp.each([&](int lane, auto& s) {
        s.peak = 0;
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i)
            if (lane * 8 + i < experts) s.peak = larger(s.peak, order_of(s.logits[i]));
    });
    all_lanes<32>(warp, [](auto& s) -> u32& { return s.peak; },
                  [](u32 a, u32 b) { return larger(a, b); });
    warp.each([&](int lane, auto& s) {
        s.mass = Pair{0.0f, 0.0f};
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i)
            if (lane * 8 + i < experts)
                s.mass = sum(s.mass, value_of(exponential_below(s.logits[i], number_of(s.peak))));
    });
    all_lanes<32>(warp, [](auto& s) -> Pair& { return s.mass; },
                  [](Pair a, Pair b) { return sum(a, b); });
    warp.each([&](int, auto& s) {
        const float peak = number_of(s.peak);
        const Pair over = reciprocal(s.mass);
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i) s.scores[i] = softmax(s.logits[i], peak, over);
    });
}

// Experts outside the best groups become the worst.
template <class Warp>
TOOLKIT_BOTH void shut_groups(Warp& warp, const ToolkitGating& gating) {
    const int lanes = gating.num_experts / gating.groups / 8;
    warp.each([](int, auto& s) {
        s.group = Best{WideKey::order(s.keys[0]), WideKey::order(s.keys[1])};
        s.rank = 0;
    });
    for (int distance = 1; distance < lanes; distance *= 2)
        warp.swap(distance, [](auto& s) { return s.group; },
                  [](int, auto& s, Best other) {
                      const u32 low = s.group.first < other.first ? s.group.first : other.first;
                      s.group.first = larger(s.group.first, other.first);
                      s.group.second = larger(low, larger(s.group.second, other.second));
                  });
    warp.each([&](int, auto& s) {
        const float first = number_of(s.group.first);
        s.group.first = order_of(gating.group_top == 2 ? first + number_of(s.group.second) : first);
    });
    for (int group = 0; group < gating.groups; ++group) {
        const u32 worth = warp.from(group * lanes, [](auto& s) { return s.group.first; });
        warp.each([&](int lane, auto& s) {
            s.rank += worth > s.group.first || (worth == s.group.first && group < lane / lanes);
        });
    }
    warp.each([&](int lane, auto& s) {
        if (s.rank < gating.top_groups) return;
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i)
            s.keys[i] = lane * 8 < gating.num_experts
                            ? WideKey::from_order(shut_order(), lane * 8 + i) : 0;
    });
}

// weights [k] and ids [k] of one token. Warp is Lanes<32, GroupedState>.
template <class Scalar, class Warp>
TOOLKIT_BOTH void gate_grouped(Warp& warp, const ToolkitGating& gating,
                               const typename Scalar::Stored* row, bool aligned, const void* bias,
                               int bias_type, float* weights, i64* ids) {
    const int experts = gating.num_experts;
    warp.each([&](int lane, auto& s) {
        u32 eight[Scalar::kWords] = {};
        if (lane * 8 < experts) read_eight(row, lane * 8, experts, aligned, eight);
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i) s.logits[i] = Scalar::value(eight, i);
        s.chosen = Pair{0.0f, 0.0f};
        s.id = 0;
    });
    score_eight(warp, gating.sigmoid != 0, experts);
    warp.each([&](int lane, auto& s) {
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i) {
            const int id = lane * 8 + i;
            s.keys[i] = 0;
            if (id >= experts) continue;
            s.keys[i] = WideKey::from_order(order_of(rounded(s.scores[i]) + read(bias, bias_type, id)), id);
        }
        sort_eight(s.keys);
    });
    if (gating.groups > 1) shut_groups(warp, gating);
    Pair total = {0.0f, 0.0f};
    for (int round = 0; round < gating.k; ++round) {
        // Lanes' experts stand in order, so the lowest lane has the lowest id.
        const int best = warp.winner([](auto& s) { return WideKey::order(s.keys[0]); });
        const int id = warp.from(best, [](auto& s) { return WideKey::id(s.keys[0]); });
        const Pair score = warp.from(best, [&](auto& s) { return picked(s.scores, id % 8); });
        total = sum(total, score);
        warp.each([&](int lane, auto& s) {
            if (lane == round) {
                s.chosen = score;
                s.id = id;
            }
            if (lane != best) return;
            TOOLKIT_UNROLL
            for (int i = 0; i < 7; ++i) s.keys[i] = s.keys[i + 1];
            s.keys[7] = 0;
        });
    }
    const Pair scale = {gating.scale, 0.0f};
    const Pair over = product(reciprocal(sum(total, {1e-20f, 0.0f})), scale);
    warp.each([&](int lane, auto& s) {
        if (lane >= gating.k) return;
        weights[lane] = rounded(product(s.chosen, gating.normalize ? over : scale));
        ids[lane] = s.id;
    });
}

}  // namespace toolkit
