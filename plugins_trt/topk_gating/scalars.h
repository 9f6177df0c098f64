// The types that logits come in, and keys that sort a token's experts.
//
// A key is an unsigned integer that is larger for an expert that goes first: a larger logit, or the
// same logit and a lower id. No key of an expert is 0, which stands for none.
#pragma once

#include "arithmetic.h"

namespace toolkit {

TOOLKIT_BOTH float half_to_float(u16 bits) {
    const u32 sign = static_cast<u32>(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    // The exponent moves by 112; a product does it for subnormals as well, exactly.
    return float_of(sign | bits_of(float_of(rest << 13) * 5.192296858534828e33f));
}

// 16 bits of order and 16 of id: half the instructions of the wide key.
struct NarrowKey {
    using Word = u32;

    TOOLKIT_BOTH static Word from_bits(u16 bits, bool nan, int id) {
        const u32 rest = bits == 0x8000u ? 0u : bits;  // -0 equals 0
        const u32 order = nan ? 0xffffu : (rest & 0x8000u) ? ~rest & 0xffffu : rest | 0x8000u;
        return order << 16 | static_cast<u32>(0xffff - id);
    }
    TOOLKIT_BOTH static int id(Word key) { return 0xffff - static_cast<int>(key & 0xffffu); }
    TOOLKIT_BOTH static u16 bits(Word key) {
        const u32 order = key >> 16;
        return static_cast<u16>((order & 0x8000u) ? order & 0x7fffu : ~order);
    }
};

struct WideKey {
    using Word = u64;

    TOOLKIT_BOTH static Word from_order(u32 order, int id) {
        return static_cast<u64>(order) << 32 | (0x7fffffffu - static_cast<u32>(id));
    }
    TOOLKIT_BOTH static int id(Word key) {
        return static_cast<int>(0x7fffffffu - static_cast<u32>(key));
    }
    TOOLKIT_BOTH static u32 order(Word key) { return static_cast<u32>(key >> 32); }
};

struct Float32 {
    using Stored = float;
    using Key = WideKey::Word;

    TOOLKIT_BOTH static float value(Stored x) { return x; }
    TOOLKIT_BOTH static Key key(Stored x, int id) { return WideKey::from_order(order_of(x), id); }
    TOOLKIT_BOTH static int id(Key key) { return WideKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return number_of(WideKey::order(key)); }
};

struct Float16 {
    using Stored = u16;
    using Key = NarrowKey::Word;

    TOOLKIT_BOTH static float value(Stored x) { return half_to_float(x); }
    TOOLKIT_BOTH static Key key(Stored x, int id) {
        return NarrowKey::from_bits(x, (x & 0x7fffu) > 0x7c00u, id);
    }
    TOOLKIT_BOTH static int id(Key key) { return NarrowKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return value(NarrowKey::bits(key)); }
};

struct Bfloat16 {
    using Stored = u16;
    using Key = NarrowKey::Word;

    TOOLKIT_BOTH static float value(Stored x) { return float_of(static_cast<u32>(x) << 16); }
    TOOLKIT_BOTH static Key key(Stored x, int id) {
        return NarrowKey::from_bits(x, (x & 0x7fffu) > 0x7f80u, id);
    }
    TOOLKIT_BOTH static int id(Key key) { return NarrowKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return value(NarrowKey::bits(key)); }
};

template <class Key>
TOOLKIT_BOTH Key larger(Key a, Key b) {
    return a > b ? a : b;
}

template <class Key>
TOOLKIT_BOTH void put_in_order(Key& first, Key& second) {
    const Key low = first > second ? second : first;
    first = larger(first, second);
    second = low;
}

// Eight keys, largest first (Batcher's odd-even merge sort: 19 exchanges).
template <class Key>
TOOLKIT_BOTH void sort_eight(Key (&keys)[8]) {
    const signed char exchanges[19][2] = {
        {0, 1}, {2, 3}, {4, 5}, {6, 7}, {0, 2}, {1, 3}, {4, 6}, {5, 7}, {1, 2}, {5, 6},
        {0, 4}, {1, 5}, {2, 6}, {3, 7}, {2, 4}, {3, 5}, {1, 2}, {3, 4}, {5, 6}};
    TOOLKIT_UNROLL
    for (int i = 0; i < 19; ++i) put_in_order(keys[exchanges[i][0]], keys[exchanges[i][1]]);
}

// The eight largest of two sorted lists, sorted: of a list and the other's reverse the larger ones
// are the eight largest, rising and falling once (Batcher's bitonic merge: 12 exchanges).
template <class Key>
TOOLKIT_BOTH void keep_eight(Key (&keys)[8], const Key (&others)[8]) {
    TOOLKIT_UNROLL
    for (int i = 0; i < 8; ++i) keys[i] = larger(keys[i], others[7 - i]);
    TOOLKIT_UNROLL
    for (int distance = 4; distance > 0; distance /= 2) {
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i)
            if ((i & distance) == 0) put_in_order(keys[i], keys[i + distance]);
    }
}

// A bias may be of another type than the logits.
enum Type { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2 };

TOOLKIT_BOTH float read(const void* numbers, int type, int i) {
    if (type == kFloat32) return static_cast<const float*>(numbers)[i];
    const u16 bits = static_cast<const u16*>(numbers)[i];
    return type == kFloat16 ? half_to_float(bits) : Bfloat16::value(bits);
}

}  // namespace toolkit
