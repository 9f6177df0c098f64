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

template <class Scalar>
struct FastState {
    u32 logits[4][Scalar::kWords];
    typename Scalar::Key best[8];  // sorted; once lanes have merged, those that are this lane's
    Exponential part[8];           // of them
    Pair mass;
};

// A list's entry whose place is not known when compiling, without memory.
template <class Entry>
TOOLKIT_BOTH Entry picked(const Entry (&entries)[8], int place) {
    Entry found = entries[0];
    TOOLKIT_UNROLL
    for (int i = 1; i < 8; ++i) found = place == i ? entries[i] : found;
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
        for (int chunk = 0; chunk < 4; ++chunk) {
            const int start = chunk_start<LANES>(chunk, lane);
            Key keys[8] = {};
            if (start < experts) {
                Scalar::keys(s.logits[chunk], start, keys);
                if (start + 8 > experts) {
                    TOOLKIT_UNROLL
                    for (int i = 0; i < 8; ++i)
                        if (start + i >= experts) keys[i] = 0;
                }
                sort_eight(keys);
                if (chunk > 0) keep_eight(s.best, keys);
            }
            if (chunk == 0) {
                TOOLKIT_UNROLL
                for (int i = 0; i < 8; ++i) s.best[i] = keys[i];
            }
        }
    });
}

// How many of the eight best a lane has in the end, and which one its first is. Of eight lanes the
// last four hold what the first four do.
template <int LANES>
TOOLKIT_BOTH constexpr int entries_of() {
    return LANES == 1 ? 8 : LANES == 2 ? 4 : 2;
}

template <int LANES>
TOOLKIT_BOTH int first_place(int lane) {
    if (LANES <= 2) return lane * 4;
    const int quad = lane & 3;
    return (quad == 0 ? 0 : quad == 3 ? 1 : quad == 1 ? 2 : 3) * 2;
}

template <class Key, int COUNT>
struct Some {
    Key keys[COUNT];
};

template <class Key, int FIRST, int COUNT, class State>
TOOLKIT_BOTH Some<Key, COUNT> some(const State& s) {
    Some<Key, COUNT> found;
    TOOLKIT_UNROLL
    for (int i = 0; i < COUNT; ++i) found.keys[i] = s.best[FIRST + i];
    return found;
}

// Two lanes, eight sorted keys each, come to hold the upper and the lower four of the best eight.
//
// Of a falling list and another's reverse the larger ones are the best, and they fall and rise once
// (Batcher); each lane has one half of them, the second lane in reverse, and the merge's first
// exchange is between lanes.
template <class Key, class Warp>
TOOLKIT_BOTH void merge_two(Warp& warp) {
    warp.swap(1, [](auto& s) { return some<Key, 4, 4>(s); },
              [](int, auto& s, Some<Key, 4> other) {
                  TOOLKIT_UNROLL
                  for (int i = 0; i < 4; ++i) s.best[i] = larger(s.best[i], other.keys[3 - i]);
              });
    warp.swap(1, [](auto& s) { return some<Key, 0, 4>(s); },
              [](int lane, auto& s, Some<Key, 4> other) {
                  TOOLKIT_UNROLL
                  for (int i = 0; i < 4; ++i) {
                      const Key theirs = other.keys[3 - i];
                      s.best[i] = lane & 1 ? smaller(s.best[i], theirs) : larger(s.best[i], theirs);
                  }
                  put_in_order(s.best[0], s.best[2]);
                  put_in_order(s.best[1], s.best[3]);
                  put_in_order(s.best[0], s.best[1]);
                  put_in_order(s.best[2], s.best[3]);
              });
}

// Two such pairs of lanes, and each of the four has two of the best eight: lanes 0 and 3 the upper
// four, 1 and 2 the lower.
template <class Key, class Warp>
TOOLKIT_BOTH void merge_four(Warp& warp) {
    warp.swap(3, [](auto& s) { return some<Key, 2, 2>(s); },
              [](int, auto& s, Some<Key, 2> other) {
                  s.best[0] = larger(s.best[0], other.keys[1]);
                  s.best[1] = larger(s.best[1], other.keys[0]);
              });
    warp.swap(1, [](auto& s) { return some<Key, 0, 2>(s); },
              [](int lane, auto& s, Some<Key, 2> other) {
                  const bool low = (lane & 3) == 1 || (lane & 3) == 2;
                  TOOLKIT_UNROLL
                  for (int i = 0; i < 2; ++i)
                      s.best[i] = low ? smaller(s.best[i], other.keys[i])
                                      : larger(s.best[i], other.keys[i]);
              });
    warp.swap(3, [](auto& s) { return some<Key, 0, 2>(s); },
              [](int lane, auto& s, Some<Key, 2> other) {
                  TOOLKIT_UNROLL
                  for (int i = 0; i < 2; ++i)
                      s.best[i] = lane & 2 ? smaller(s.best[i], other.keys[1 - i])
                                           : larger(s.best[i], other.keys[1 - i]);
                  put_in_order(s.best[0], s.best[1]);
              });
}

template <class Key, int LANES, class Warp>
TOOLKIT_BOTH void merge_lanes(Warp& warp) {
    if constexpr (LANES == 8)
        warp.swap(4, [](auto& s) { return some<Key, 0, 8>(s); },
                  [](int, auto& s, Some<Key, 8> other) { keep_eight(s.best, other.keys); });
    if constexpr (LANES >= 2) merge_two<Key>(warp);
    if constexpr (LANES >= 4) merge_four<Key>(warp);
}

// weights [k] and ids [k] of one token. Warp is Lanes<LANES, FastState<Scalar>>; WHOLE says that
// weights are divided by the sum over all experts (normalize 0). `live` is false in lanes that only
// keep others company: they write nothing.
template <class Scalar, int LANES, bool WHOLE, class Warp>
TOOLKIT_BOTH void gate_fast(Warp& warp, const ToolkitGating& gating,
                            const typename Scalar::Stored* row, bool aligned, bool live,
                            float* weights, i64* ids) {
    constexpr int EACH = entries_of<LANES>();
    const int experts = gating.num_experts, k = gating.k;
    find_best<Scalar, LANES>(warp, row, experts, aligned);
    merge_lanes<typename Scalar::Key, LANES>(warp);
    const float peak = Scalar::value_of_key(warp.from(0, [](auto& s) { return s.best[0]; }));
    warp.each([&](int lane, auto& s) {
        s.mass = Pair{0.0f, 0.0f};
        TOOLKIT_UNROLL
        for (int i = 0; i < EACH; ++i) {
            s.part[i] = exponential_below(Scalar::value_of_key(s.best[i]), peak);
            const bool counts = !WHOLE && lane < 4 && first_place<LANES>(lane) + i < k;
            s.mass = sum(s.mass, counts ? value_of(s.part[i]) : Pair{0.0f, 0.0f});
        }
        if constexpr (WHOLE) {
            TOOLKIT_UNROLL
            for (int i = 0; i < 32; ++i) {
                if (chunk_start<LANES>(i / 8, lane) + i % 8 >= experts) continue;
                const float x = Scalar::value(s.logits[i / 8], i % 8);
                s.mass = sum(s.mass, value_of(exponential_below(x, peak)));
            }
        }
    });
    all_lanes<LANES>(warp, [](auto& s) -> Pair& { return s.mass; },
                     [](Pair a, Pair b) { return sum(a, b); });
    warp.each([&](int lane, auto& s) {
        const bool good = is_finite(peak);  // else inf - inf or NaN, for every expert
        const Pair over = product(reciprocal(s.mass), {gating.scale, 0.0f});
        TOOLKIT_UNROLL
        for (int i = 0; i < EACH; ++i) {
            const int place = first_place<LANES>(lane) + i;
            if (!live || lane >= 4 || place >= k) continue;
            weights[place] = good ? share(s.part[i], over) : not_a_number();
            ids[place] = Scalar::id(s.best[i]);
        }
    });
}

}  // namespace toolkit
