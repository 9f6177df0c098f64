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

// Memory is read as 16-byte words.
struct alignas(16) Words {
    u32 word[4];
};

// 16 bits of order and 16 of id: half the instructions of the wide key. Orders are made two at a
// time: a positive number's is itself with the sign set, a negative one's is what is left of 2^16,
// so that -0 and 0 are the same.
struct NarrowKey {
    using Word = u32;

    TOOLKIT_BOTH static u32 orders(u32 two) {
        const u32 negative = two >> 15 & 0x00010001u;
        return (two ^ negative * 0x7fffu ^ 0x80008000u) + negative;
    }
    // Both halves where they are NaN become the same one, above infinity. INFINITY_BITS is the
    // number's type's.
    template <u32 INFINITY_BITS>
    TOOLKIT_BOTH static u32 nan_halves(u32 two) {
        constexpr u32 carry = 0x7fffu - INFINITY_BITS;
        return ((two & 0x7fff7fffu) + (carry << 16 | carry)) & 0x80008000u;
    }
    TOOLKIT_BOTH static u32 with_nan(u32 two, u32 nan) {
        const u32 halves = (nan >> 15) * 0xffffu;
        return (two & ~halves) | (halves & 0x7fff7fffu);
    }
    template <u32 INFINITY_BITS>
    TOOLKIT_BOTH static void keys(const u32 (&words)[4], int start, Word (&keys)[8]) {
        u32 clean[4], nan = 0;
        TOOLKIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            clean[i] = words[i];
            nan |= nan_halves<INFINITY_BITS>(words[i]);
        }
        if (nan != 0) {
            TOOLKIT_UNROLL
            for (int i = 0; i < 4; ++i)
                clean[i] = with_nan(words[i], nan_halves<INFINITY_BITS>(words[i]));
        }
        TOOLKIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            const u32 two = orders(clean[i]), last = 0xffffu - static_cast<u32>(start + 2 * i);
            keys[2 * i] = (two << 16) + last;
            keys[2 * i + 1] = (two & 0xffff0000u) | (last - 1);
        }
    }
    TOOLKIT_BOTH static int id(Word key) { return 0xffff - static_cast<int>(key & 0xffffu); }
    TOOLKIT_BOTH static u16 bits(Word key) {
        const u32 order = key >> 16;
        return static_cast<u16>((order & 0x8000u) ? order & 0x7fffu : 0x10000u - order);
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

// Eight numbers from `start` on, of a row of `count`; where `aligned` they are read in wide words.
TOOLKIT_BOTH void read_eight(const u16* row, int start, int count, bool aligned, u32 (&to)[4]) {
    if (aligned) {
        const Words words = *reinterpret_cast<const Words*>(row + start);
        TOOLKIT_UNROLL
        for (int i = 0; i < 4; ++i) to[i] = words.word[i];
        return;
    }
    TOOLKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        const int at = start + 2 * i;
        const u32 low = at < count ? row[at] : 0u, high = at + 1 < count ? row[at + 1] : 0u;
        to[i] = high << 16 | low;
    }
}

TOOLKIT_BOTH void read_eight(const float* row, int start, int count, bool aligned, u32 (&to)[8]) {
    if (aligned) {
        TOOLKIT_UNROLL
        for (int half = 0; half < 2; ++half) {
            const Words words = *reinterpret_cast<const Words*>(row + start + half * 4);
            TOOLKIT_UNROLL
            for (int i = 0; i < 4; ++i) to[half * 4 + i] = words.word[i];
        }
        return;
    }
    TOOLKIT_UNROLL
    for (int i = 0; i < 8; ++i) to[i] = start + i < count ? bits_of(row[start + i]) : 0u;
}

TOOLKIT_BOTH u16 half_of(const u32 (&words)[4], int i) {
    return static_cast<u16>(words[i / 2] >> (i % 2 * 16));
}

struct Float32 {
    using Stored = float;
    using Key = WideKey::Word;
    enum { kWords = 8 };  // of eight numbers

    TOOLKIT_BOTH static float value(Stored x) { return x; }
    TOOLKIT_BOTH static float value(const u32 (&words)[8], int i) { return float_of(words[i]); }
    TOOLKIT_BOTH static void keys(const u32 (&words)[8], int start, Key (&keys)[8]) {
        TOOLKIT_UNROLL
        for (int i = 0; i < 8; ++i)
            keys[i] = WideKey::from_order(order_of(float_of(words[i])), start + i);
    }
    TOOLKIT_BOTH static int id(Key key) { return WideKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return number_of(WideKey::order(key)); }
};

struct Float16 {
    using Stored = u16;
    using Key = NarrowKey::Word;
    enum { kWords = 4 };

    TOOLKIT_BOTH static float value(Stored x) { return half_to_float(x); }
    TOOLKIT_BOTH static float value(const u32 (&words)[4], int i) {
        return value(half_of(words, i));
    }
    TOOLKIT_BOTH static void keys(const u32 (&words)[4], int start, Key (&keys)[8]) {
        NarrowKey::keys<0x7c00u>(words, start, keys);
    }
    TOOLKIT_BOTH static int id(Key key) { return NarrowKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return value(NarrowKey::bits(key)); }
};

struct Bfloat16 {
    using Stored = u16;
    using Key = NarrowKey::Word;
    enum { kWords = 4 };

    TOOLKIT_BOTH static float value(Stored x) { return float_of(static_cast<u32>(x) << 16); }
    TOOLKIT_BOTH static float value(const u32 (&words)[4], int i) {
        return value(half_of(words, i));
    }
    TOOLKIT_BOTH static void keys(const u32 (&words)[4], int start, Key (&keys)[8]) {
        NarrowKey::keys<0x7f80u>(words, start, keys);
    }
    TOOLKIT_BOTH static int id(Key key) { return NarrowKey::id(key); }
    TOOLKIT_BOTH static float value_of_key(Key key) { return value(NarrowKey::bits(key)); }
};

template <class Key>
TOOLKIT_BOTH Key larger(Key a, Key b) {
    return a > b ? a : b;
}

template <class Key>
TOOLKIT_BOTH Key smaller(Key a, Key b) {
    return a > b ? b : a;
}

template <class Key>
TOOLKIT_BOTH void put_in_order(Key& first, Key& second) {
    const Key low = smaller(first, second);
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
