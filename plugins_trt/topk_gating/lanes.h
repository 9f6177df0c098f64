// Lanes: up to 32 threads of a warp that work on one token, or a loop that plays them.
//
// Code that is written with `each` and `swap` runs on either: `each` does something in every lane
// with the lane's own state, and between two of them lanes exchange what they have. On the device a
// lane is a thread, its state lives in registers, and exchanges are shuffles.
#pragma once

#include "arithmetic.h"

namespace toolkit {

// What a slot's lane learns about the other lanes that hold the same expert.
struct Match {
    int before;  // how many stand before it
    int total;
};

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// LANES threads of a warp, a power of two; all 32 threads of the warp take every step together.
template <int LANES, class State>
struct Lanes {
    State state;

    TOOLKIT_BOTH static int lane() {
#if defined(__CUDA_ARCH__)
        return threadIdx.x % LANES;
#else
        return 0;
#endif
    }

    template <class Do>
    TOOLKIT_BOTH void each(Do act) {
        act(lane(), state);
    }

    // use(lane, state, what get gives in the lane whose number differs in the bit `distance`).
    template <class Get, class Use>
    TOOLKIT_BOTH void swap(int distance, Get get, Use use) {
        use(lane(), state, across(get(state), distance));
    }

    // What get gives in one lane, in all of them.
    template <class Get>
    TOOLKIT_BOTH auto from(int source, Get get) -> decltype(get(state)) {
        return copied(get(state), source);
    }

    // The lowest of 32 lanes with the largest number.
    template <class Get>
    TOOLKIT_BOTH int winner(Get get) {
#if defined(__CUDA_ARCH__)
        const u32 mine = get(state);
        const u32 best = __reduce_max_sync(0xffffffffu, mine);
        return __ffs(static_cast<int>(__ballot_sync(0xffffffffu, mine == best))) - 1;
#else
        return 0;
#endif
    }

    // Which of 32 lanes hold the same non-negative number as each.
    template <class Get, class Use>
    TOOLKIT_BOTH void match(Get get, Use use) {
#if defined(__CUDA_ARCH__)
        const u32 same = __match_any_sync(0xffffffffu, get(state));
        use(lane(), state, Match{__popc(same & ((1u << lane()) - 1)), __popc(same)});
#endif
    }

    // Memory that one lane wrote is seen by the others.
    TOOLKIT_BOTH void settle() {
#if defined(__CUDA_ARCH__)
        __syncwarp();
#endif
    }

  private:
    template <class Value>
    TOOLKIT_BOTH static Value across(Value value, int distance) {
        static_assert(sizeof(Value) % 4 == 0, "values are exchanged word by word");
#if defined(__CUDA_ARCH__)
        u32* words = reinterpret_cast<u32*>(&value);
        TOOLKIT_UNROLL
        for (int i = 0; i < static_cast<int>(sizeof(Value) / 4); ++i)
            words[i] = __shfl_xor_sync(0xffffffffu, words[i], distance);
#endif
        return value;
    }

    template <class Value>
    TOOLKIT_BOTH static Value copied(Value value, int source) {
        static_assert(sizeof(Value) % 4 == 0, "values are exchanged word by word");
#if defined(__CUDA_ARCH__)
        u32* words = reinterpret_cast<u32*>(&value);
        TOOLKIT_UNROLL
        for (int i = 0; i < static_cast<int>(sizeof(Value) / 4); ++i)
            words[i] = __shfl_sync(0xffffffffu, words[i], source, LANES);
#endif
        return value;
    }
};

#else

template <int LANES, class State>
struct Lanes {
    State states[LANES];

    template <class Do>
    void each(Do act) {
        for (int lane = 0; lane < LANES; ++lane) act(lane, states[lane]);
    }

    template <class Get, class Use>
    void swap(int distance, Get get, Use use) {
        decltype(get(states[0])) values[LANES];
        for (int lane = 0; lane < LANES; ++lane) values[lane] = get(states[lane]);
        for (int lane = 0; lane < LANES; ++lane) use(lane, states[lane], values[lane ^ distance]);
    }

    template <class Get>
    auto from(int source, Get get) -> decltype(get(states[0])) {
        return get(states[source]);
    }

    template <class Get>
    int winner(Get get) {
        int best = 0;
        for (int lane = 1; lane < LANES; ++lane)
            if (get(states[lane]) > get(states[best])) best = lane;
        return best;
    }

    template <class Get, class Use>
    void match(Get get, Use use) {
        int values[LANES];
        for (int lane = 0; lane < LANES; ++lane) values[lane] = get(states[lane]);
        for (int lane = 0; lane < LANES; ++lane) {
            Match same = {0, 0};
            for (int other = 0; other < LANES; ++other) {
                if (values[other] != values[lane]) continue;
                same.before += other < lane;
                same.total += 1;
            }
            use(lane, states[lane], same);
        }
    }

    void settle() {}
};

#endif

// Every lane comes to hold what `join` makes of all lanes' parts; join must not mind the order.
template <int LANES, class Warp, class Part, class Join>
TOOLKIT_BOTH void all_lanes(Warp& warp, Part part, Join join) {
    TOOLKIT_UNROLL
    for (int distance = 1; distance < LANES; distance *= 2)
        warp.swap(distance, [&](auto& state) { return part(state); },
                  [&](int, auto& state, auto other) { part(state) = join(part(state), other); });
}

}  // namespace toolkit
