// Either operator of gating for any E <= 1024, k <= 32 and any groups: one warp for a token, with
// memory that it shares, and k searches for the best expert that is left.
#pragma once

#include "grouped.h"

namespace toolkit {

struct GeneralState {
    u32 peak;
    Pair mass;
    u32 kept;  // bit i: group i * 32 + lane is among the best
    u64 found;
    Pair chosen;  // a score; of a plain gating, the logit
    int id;
};

// Shared by the warp: three arrays of E numbers.
struct Board {
    float* logits;
    u32* orders;  // of what is sorted by
    u32* groups;  // what each group is worth
};

// The best of a range that is below `limit`.
TOOLKIT_BOTH u64 best_below(const u32* orders, int start, int stop, int step, u64 limit) {
    u64 best = 0;
    for (int i = start; i < stop; i += step) {
        const u64 key = WideKey::from_order(orders[i], i);
        if (key < limit) best = larger(best, key);
    }
    return best;
}

// Peak and sum of exponentials below it, over all logits on the board.
template <class Warp>
TOOLKIT_BOTH void weigh_all(Warp& warp, const Board& board, int experts) {
    warp.each([&](int lane, auto& s) {
        s.peak = 0;
        for (int i = lane; i < experts; i += 32) s.peak = larger(s.peak, order_of(board.logits[i]));
    });
    all_lanes<32>(warp, [](auto& s) -> u32& { return s.peak; },
                  [](u32 a, u32 b) { return larger(a, b); });
    warp.each([&](int lane, auto& s) {
        s.mass = Pair{0.0f, 0.0f};
        for (int i = lane; i < experts; i += 32)
            s.mass = sum(s.mass, value_of(exponential_below(board.logits[i], number_of(s.peak))));
    });
    all_lanes<32>(warp, [](auto& s) -> Pair& { return s.mass; },
                  [](Pair a, Pair b) { return sum(a, b); });
}

TOOLKIT_BOTH Pair score_of(const ToolkitGating& gating, float logit, float peak, Pair over) {
    return gating.sigmoid ? sigmoid(logit) : softmax(logit, peak, over);
}

template <class Warp>
TOOLKIT_BOTH void score_all(Warp& warp, const ToolkitGating& gating, const Board& board,
                            const void* bias, int bias_type) {
    warp.each([&](int lane, auto& s) {
        const Pair over = reciprocal(s.mass);
        for (int i = lane; i < gating.num_experts; i += 32) {
            const Pair score = score_of(gating, board.logits[i], number_of(s.peak), over);
            board.orders[i] = order_of(rounded(score) + read(bias, bias_type, i));
        }
    });
}

// The sum of a group's best, from the largest down, in float32.
TOOLKIT_BOTH float worth_of(const u32* orders, int start, int stop, int count) {
    u64 last = best_below(orders, start, stop, 1, ~u64{0});
    float worth = number_of(WideKey::order(last));
    for (int i = 1; i < count; ++i) {
        last = best_below(orders, start, stop, 1, last);
        worth += number_of(WideKey::order(last));
    }
    return worth;
}

template <class Warp>
TOOLKIT_BOTH void shut_any_groups(Warp& warp, const ToolkitGating& gating, const Board& board) {
    const int count = gating.groups, size = gating.num_experts / count;
    warp.each([&](int lane, auto&) {
        for (int group = lane; group < count; group += 32)
            board.groups[group] = order_of(
                worth_of(board.orders, group * size, (group + 1) * size, gating.group_top));
    });
    warp.settle();
    warp.each([&](int lane, auto& s) {
        s.kept = 0;
        for (int group = lane; group < count; group += 32) {
            const u32 worth = board.groups[group];
            int rank = 0;
            for (int other = 0; other < count; ++other)
                rank += board.groups[other] > worth ||
                        (board.groups[other] == worth && other < group);
            if (rank < gating.top_groups) s.kept |= 1u << group / 32;
        }
    });
    warp.each([&](int lane, auto& s) {
        for (int group = lane; group < count; group += 32) {
            if (s.kept >> group / 32 & 1u) continue;
            for (int i = group * size; i < (group + 1) * size; ++i) board.orders[i] = shut_order();
        }
    });
    warp.settle();
}

// weights [k] and ids [k] of one token. Warp is Lanes<32, GeneralState>; bias is not read for a
// plain gating.
template <class Scalar, class Warp>
TOOLKIT_BOTH void gate_general(Warp& warp, const ToolkitGating& gating,
                               const typename Scalar::Stored* row, const void* bias, int bias_type,
                               const Board& board, float* weights, i64* ids) {
    const int experts = gating.num_experts;
    const bool grouped = gating.grouped != 0;
    warp.each([&](int lane, auto& s) {
        s.peak = 0;
        s.mass = Pair{1.0f, 0.0f};
        s.chosen = Pair{0.0f, 0.0f};
        s.id = 0;
        for (int i = lane; i < experts; i += 32) {
            board.logits[i] = Scalar::value(row[i]);
            board.orders[i] = order_of(board.logits[i]);
        }
    });
    if (grouped ? !gating.sigmoid : !gating.normalize) weigh_all(warp, board, experts);
    if (grouped) score_all(warp, gating, board, bias, bias_type);
    warp.settle();
    if (grouped && gating.groups > 1) shut_any_groups(warp, gating, board);
    float peak = number_of(warp.from(0, [](auto& s) { return s.peak; }));
    const Pair mass = warp.from(0, [](auto& s) { return s.mass; });
    const Pair over_mass = reciprocal(mass);
    Pair total = {0.0f, 0.0f};
    u64 last = ~u64{0};
    for (int round = 0; round < gating.k; ++round) {
        warp.each([&](int lane, auto& s) {
            s.found = best_below(board.orders, lane, experts, 32, last);
        });
        all_lanes<32>(warp, [](auto& s) -> u64& { return s.found; },
                      [](u64 a, u64 b) { return larger(a, b); });
        last = warp.from(0, [](auto& s) { return s.found; });
        const int id = WideKey::id(last);
        const float logit = board.logits[id];
        if (round == 0 && !grouped) peak = logit;
        const Pair part = grouped ? score_of(gating, logit, peak, over_mass)
                                  : value_of(exponential_below(logit, peak));
        total = sum(total, part);
        warp.each([&](int lane, auto& s) {
            if (lane != round) return;
            s.chosen = grouped ? part : Pair{logit, 0.0f};
            s.id = id;
        });
    }
    if (grouped) total = sum(total, {1e-20f, 0.0f});
    if (!gating.normalize) total = grouped ? Pair{1.0f, 0.0f} : mass;
    const Pair over = product(reciprocal(total), {gating.scale, 0.0f});
    warp.each([&](int lane, auto& s) {
        if (lane >= gating.k) return;
        ids[lane] = s.id;
        if (grouped)
            weights[lane] = rounded(product(s.chosen, over));
        else
            weights[lane] = is_finite(peak) ? share(exponential_below(s.chosen.hi, peak), over)
                                            : not_a_number();
    });
    warp.settle();
}

}  // namespace toolkit
