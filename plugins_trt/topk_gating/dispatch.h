// Who goes where: slots sorted by expert, stably, by counting. No order depends on who comes first.
//
// Slots are cut into segments, one for each warp. Every warp counts its segment's experts; the
// counts before a segment, summed, are where its rows of each expert begin; and every warp walks its
// segment again and places the slots. Lanes that hold the same expert find each other by matching.
#pragma once

#include "lanes.h"

namespace toolkit {

// How many slots a warp walks, for so many slots in all.
TOOLKIT_BOTH int segment_length(int slots) {
    int length = 32;
    while (length < 1024 && static_cast<i64>(length) * 256 < slots) length *= 2;
    return length;
}

TOOLKIT_BOTH int segments_of(int slots) {
    const int length = segment_length(slots);
    return (slots + length - 1) / length;
}

struct SlotState {
    int expert;
};

// An id that is no expert's would write outside; it is taken for the last expert's.
TOOLKIT_BOTH int checked(i64 id, int experts) {
    return id < 0 || id >= experts ? experts - 1 : static_cast<int>(id);
}

// counts[e * stride] becomes how many slots of [begin, end) are expert e's. Warp is
// Lanes<32, SlotState>.
template <class Warp>
TOOLKIT_BOTH void count_segment(Warp& warp, const i64* ids, int begin, int end, int experts,
                                int* counts, int stride) {
    warp.each([&](int lane, auto&) {
        for (int e = lane; e < experts; e += 32) counts[e * stride] = 0;
    });
    warp.settle();
    for (int slot = begin; slot < end; slot += 32) {
        warp.each([&](int lane, auto& s) {
            // Lanes beyond the end hold an expert of their own.
            s.expert = slot + lane < end ? checked(ids[slot + lane], experts) : experts;
        });
        warp.match([](auto& s) { return s.expert; },
                   [&](int, auto& s, Match same) {
                       if (s.expert < experts && same.before == 0)
                           counts[s.expert * stride] += same.total;
                   });
        warp.settle();
    }
}

// next[e * stride] is the row of the segment's first slot of expert e, and moves on.
template <class Warp>
TOOLKIT_BOTH void place_segment(Warp& warp, const i64* ids, int begin, int end, int experts, int k,
                                int* next, int stride, i64* token_of_row, i64* row_of_slot) {
    for (int slot = begin; slot < end; slot += 32) {
        warp.each([&](int lane, auto& s) {
            s.expert = slot + lane < end ? checked(ids[slot + lane], experts) : experts;
        });
        warp.match([](auto& s) { return s.expert; },
                   [&](int lane, auto& s, Match same) {
                       if (s.expert >= experts) return;
                       const int row = next[s.expert * stride] + same.before;
                       row_of_slot[slot + lane] = row;
                       token_of_row[row] = (slot + lane) / k;
                   });
        warp.settle();
        warp.match([](auto& s) { return s.expert; },
                   [&](int, auto& s, Match same) {
                       if (s.expert < experts && same.before == 0)
                           next[s.expert * stride] += same.total;
                   });
        warp.settle();
    }
}

// Cell c of expert e in a table [E, capacity]: the token of its c-th row, or 0 where it has fewer.
TOOLKIT_BOTH i64 padded_cell(const i64* token_of_row, const i64* offsets, int expert, int cell) {
    const i64 row = offsets[expert] + cell;
    return row < offsets[expert + 1] ? token_of_row[row] : 0;
}

}  // namespace toolkit
