// Logits of one token in, weights and ids of its k experts out: TopKGating on the fast path.
//
// For E <= 256 and k <= 8. Each of 1 to 8 lanes reads up to 32 logits, once, eight at a time; sorts
// every eight in registers and keeps the best eight seen; then lanes merge theirs.
#pragma once

#include "config.h"
#include "lanes.h"
#include "scalars.h"

namespace toolkit {

enum { kFastExperts = 256, kFastK = 8 };

// How many lanes share a token of E experts.
TOOLKIT_BOTH int lanes_for(int experts) {
    return experts <= 32 ? 1 : experts <= 64 ? 2 : experts <= 128 ? 4 : 8;
}

struct alignas(16) Words {
    u32 word[4];
};

// Eight logits from `start` on; where `aligned` they are read as 16-byte words.
TOOLKIT_BOTH void read_eight(const u16* row, int start, int experts, bool aligned, u16 (&to)[8]) {
    if (aligned) {
        const Words words = *reinterpret_cast<const Words*>(row + start);
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i) to[i] = static_cast<u16>(words.word[i / 2] >> (i % 2 * 16));
        return;
    }
    TOOLKIT_UNROLL
    for (int i = 0; i < 8; ++i) to[i] = start + i < experts ? row[start + i] : u16{0};
}

TOOLKIT_BOTH void read_eight(const float* row, int start, int experts, bool aligned,
                             float (&to)[8]) {
    if (aligned) {
        TOOLKIT_UNROLL
        for (int half = 0; half < 2; ++half) {
            const Words words = *reinterpret_cast<const Words*>(row + start + half * 4);
            TOOLKIT_UNROLL
            for (int i = 0; i < 4; ++i) to[half * 4 + i] = float_of(words.word[i]);
        }
        return;
    }
    TOOLKIT_UNROLL
    for (int i = 0; i < 8; ++i) to[i] = start + i < experts ? row[start + i] : 0.0f;
}

template <class Scalar>
struct FastState {
    typename Scalar::Stored logits[4][8];
    typename Scalar::Key best[8];  // sorted
    Exponential part[8];  // of the entries that are this lane's
    Pair mass;
};

// A list's entry whose place is not known when compiling, without memory.
template <class Key>
TOOLKIT_BOTH Key picked(const Key (&keys)[8], int place) {
    Key found = keys[0];
    TOOLKIT_UNROLL
    for (int i = 1; i < 8; ++i) found = place == i ? keys[i] : found;
    return found;
}

// Where a lane's chunk of eight experts begins: lanes lie beside each other, for wide reads.
template <int LANES>
TOOLKIT_BOTH int chunk_start(int chunk, int lane) {
    return (chunk * LANES + lane) * 8;
}

template <class Scalar, int LANES, class Warp>
TOOLKIT_BOTH void find_best(Warp& warp, const typename Scalar::Stored* row, int experts,
                            bool aligned) {
    using Key = typename Scalar::Key;
    warp.each([&](int lane, auto& s) {
        // All reads are under way before the first is waited for.
        TOOLKIT_UNROLL
        for (int chunk = 0; chunk < 4; ++chunk) {
            const int start = chunk_start<LANES>(chunk, lane);
            if (start < experts) read_eight(row, start, experts, aligned, s.logits[chunk]);
        }
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i) s.best[i] = 0;
        TOOLKIT_UNROLL
        for (int chunk = 0; chunk < 4; ++chunk) {
            const int start = chunk_start<LANES>(chunk, lane);
            if (start >= experts) continue;
            Key keys[8];
            TOOLKIT_UNROLL
            for (int i = 0; i < 8; ++i)
                keys[i] = start + i < experts ? Scalar::key(s.logits[chunk][i], start + i) : 0;
            sort_eight(keys);
            keep_eight(s.best, keys);
        }
    });
    struct List {
        Key keys[8];
    };
    TOOLKIT_UNROLL
    for (int distance = 1; distance < LANES; distance *= 2)
        warp.swap(
            distance,
            [](auto& s) {
                List list;
                TOOLKIT_UNROLL
                for (int i = 0; i < 8; ++i) list.keys[i] = s.best[i];
                return list;
            },
            [](int, auto& s, List other) { keep_eight(s.best, other.keys); });
}

// weights [k] and ids [k] of one token. Warp is Lanes<LANES, FastState<Scalar>>; WHOLE says that
// weights are divided by the sum over all experts (normalize 0). `live` is false in lanes that only
// keep others company: they read nothing and write nothing.
template <class Scalar, int LANES, bool WHOLE, class Warp>
TOOLKIT_BOTH void gate_fast(Warp& warp, const ToolkitGating& gating,
                            const typename Scalar::Stored* row, bool aligned, bool live,
                            float* weights, i64* ids) {
    constexpr int EACH = 8 / LANES;  // entries of the list that a lane turns into weights
    const int experts = live ? gating.num_experts : 0, k = gating.k;
    find_best<Scalar, LANES>(warp, row, experts, aligned);
    warp.each([&](int lane, auto& s) {
        const float peak = Scalar::value_of_key(s.best[0]);
        s.mass = Pair{0.0f, 0.0f};
        TOOLKIT_UNROLL
        for (int i = 0; i < EACH; ++i) {
            const int place = lane * EACH + i;
            s.part[i] = exponential_below(Scalar::value_of_key(picked(s.best, place)), peak);
            if (!WHOLE && place < k) s.mass = sum(s.mass, value_of(s.part[i]));
        }
        if constexpr (WHOLE) {
            TOOLKIT_UNROLL
            for (int i = 0; i < 32; ++i) {
                if (chunk_start<LANES>(i / 8, lane) + i % 8 >= experts) continue;
                const float x = Scalar::value(s.logits[i / 8][i % 8]);
                s.mass = sum(s.mass, value_of(exponential_below(x, peak)));
            }
        }
    });
    all_lanes<LANES>(warp, [](auto& s) -> Pair& { return s.mass; },
                     [](Pair a, Pair b) { return sum(a, b); });
    warp.each([&](int lane, auto& s) {
        const float peak = Scalar::value_of_key(s.best[0]);
        const bool good = is_finite(peak);  // else inf - inf or NaN, for every expert
        const Pair over = product(reciprocal(s.mass), {gating.scale, 0.0f});
        TOOLKIT_UNROLL
        for (int i = 0; i < EACH; ++i) {
            const int place = lane * EACH + i;
            if (!live || place >= k) continue;
            weights[place] = good ? share(s.part[i], over) : not_a_number();
            ids[place] = Scalar::id(picked(s.best, place));
        }
    });
}

}  // namespace toolkit
