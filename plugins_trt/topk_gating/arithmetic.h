// Arithmetic that is the same on every machine: exponentials, sums and orders of float32.
//
// A weight has to be right to the last bit or its neighbour, and the library's expf and a sum of
// float32 are not. So numbers are carried as unevaluated sums of two float32 (Dekker 1971), about
// 36 bits here, and rounded once at the end. Only additions, products and fused products are used,
// spelled out, so that host and device give the same bits; compile without contraction
// (-ffp-contract=off, --fmad=false).
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define TOOLKIT_BOTH __host__ __device__ __forceinline__
#define TOOLKIT_UNROLL _Pragma("unroll")
#else
#include <cmath>
#include <cstring>
#define TOOLKIT_BOTH inline
#define TOOLKIT_UNROLL
#endif

namespace toolkit {

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

TOOLKIT_BOTH u32 bits_of(float x) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(x);
#else
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
#endif
}

TOOLKIT_BOTH float float_of(u32 bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

TOOLKIT_BOTH float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

TOOLKIT_BOTH bool is_nan(float x) { return x != x; }
TOOLKIT_BOTH bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }
TOOLKIT_BOTH float not_a_number() { return float_of(0x7fc00000u); }

// Orders: unsigned integers that compare as the numbers do. -0 equals 0, and every NaN is the same
// one, above infinity: so sort PyTorch and ONNX Runtime.

TOOLKIT_BOTH u32 order_of(float x) {
    if (is_nan(x)) return 0xffffffffu;
    const u32 bits = bits_of(x + 0.0f);  // -0 + 0 is 0
    return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

TOOLKIT_BOTH float number_of(u32 order) {
    return float_of((order & 0x80000000u) ? order & 0x7fffffffu : ~order);
}

// Sums of two: |lo| is at most about half a unit in the last place of hi.
struct Pair {
    float hi, lo;
};

// a + b exactly, for |a| >= |b|.
TOOLKIT_BOTH Pair fast_sum(float a, float b) {
    const float s = a + b;
    return {s, b - (s - a)};
}

// a + b exactly (Knuth).
TOOLKIT_BOTH Pair exact_sum(float a, float b) {
    const float s = a + b, c = s - a;
    return {s, (a - (s - c)) + (b - c)};
}

// Symmetric, so lanes that add each other's sums agree.
TOOLKIT_BOTH Pair sum(Pair a, Pair b) {
    const Pair s = exact_sum(a.hi, b.hi);
    return fast_sum(s.hi, s.lo + (a.lo + b.lo));
}

TOOLKIT_BOTH Pair product(Pair a, Pair b) {
    const float p = a.hi * b.hi;
    const float lo = fused(a.hi, b.hi, -p) + fused(a.hi, b.lo, a.lo * b.hi);
    return fast_sum(p, lo);
}

TOOLKIT_BOTH Pair reciprocal(Pair a) {
    const float r = 1.0f / a.hi;
    const float rest = fused(-r, a.lo, fused(-r, a.hi, 1.0f));
    return {r, rest * r};
}

TOOLKIT_BOTH float rounded(Pair a) { return a.hi + a.lo; }

// 2^n for -126 <= n <= 127; 0 below.
TOOLKIT_BOTH float power_of_two(int n) {
    return n < -126 ? 0.0f : float_of(static_cast<u32>(n + 127) << 23);
}

// x * 2^n for -252 <= n <= 0, rounded once more only where it is subnormal.
TOOLKIT_BOTH float scaled(float x, int n) {
    const int half = n / 2;
    return x * power_of_two(half) * power_of_two(n - half);
}

// mantissa * 2^exponent, 0.9 < mantissa < 2.
struct Exponential {
    Pair mantissa;
    int exponent;
};

// As a sum of two; 0 below 2^-126, which beside the 1 that it is added to or divided by is nothing.
TOOLKIT_BOTH Pair value_of(Exponential e) {
    const float power = power_of_two(e.exponent);
    return {e.mantissa.hi * power, e.mantissa.lo * power};
}

// exp(x) for x.hi <= 0, to about 2^-36 of itself; 0 below -170, where no float32 is left.
//
// x = n ln(2)/4 + r with |r| <= ln(2)/8, and exp(x) = 2^(n >> 2) 2^((n & 3)/4) exp(r). ln(2)/4 is
// split in three so that n times the first part is exact; exp(r) is its Taylor polynomial of degree
// 7, whose terms up to r^2 are carried as sums of two.
TOOLKIT_BOTH Exponential exponential(Pair x) {
    const bool gone = !(x.hi >= -170.0f);  // chosen at the end: a branch costs more
    if (gone) x = Pair{0.0f, 0.0f};
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding and taking it away rounds
    const float n = (x.hi * 5.770780086517334f + shift) - shift;  // 4 / ln(2)
    const float first = fused(-n, 0.17327880859375f, x.hi);
    const float second = n * 7.986545824678615e-6f;
    const float left = fused(n, 7.986545824678615e-6f, -second);
    const Pair cut = exact_sum(first, -second);
    const Pair r = fast_sum(cut.hi, cut.lo - left - n * 4.116487424370152e-13f + x.lo);
    const float square = r.hi * r.hi;
    float tail = fused(r.hi, 1.9841270e-4f, 1.3888889e-3f);
    tail = fused(tail, r.hi, 8.3333333e-3f);
    tail = fused(tail, r.hi, 4.1666668e-2f);
    tail = fused(tail, r.hi, 1.6666667e-1f) * square * r.hi;
    const float beside = fused(r.hi, r.lo, 0.5f * fused(r.hi, r.hi, -square));
    const Pair one = fast_sum(1.0f, r.hi);
    const Pair two = fast_sum(one.hi, 0.5f * square);
    const Pair exp_r = {two.hi, one.lo + two.lo + (r.lo + beside + tail)};
    const int quarters = static_cast<int>(n), part = quarters & 3;
    const Pair odd = part & 2 ? Pair{1.6817928552627563f, -2.4755326677450284e-8f}
                              : Pair{1.1892070770263672f, 3.797635272917432e-8f};
    const Pair even = part & 2 ? Pair{1.4142135381698608f, 2.4203234971764687e-8f} : Pair{1.0f, 0.0f};
    const Pair found = product(exp_r, part & 1 ? odd : even);
    return {gone ? Pair{0.0f, 0.0f} : found, quarters >> 2};
}

// exp(x - peak) for finite x <= peak or x of -inf: the difference is taken exactly.
TOOLKIT_BOTH Exponential exponential_below(float x, float peak) {
    return exponential(x - peak < -170.0f ? Pair{-200.0f, 0.0f} : exact_sum(x, -peak));
}

// e / b, rounded once; b >= 1 comes as a reciprocal.
TOOLKIT_BOTH float share(Exponential e, Pair reciprocal_of_b) {
    return scaled(rounded(product(e.mantissa, reciprocal_of_b)), e.exponent);
}

// The same, not rounded; 0 where it is below the smallest normal float32, 2^-126.
TOOLKIT_BOTH Pair exact_share(Exponential e, Pair reciprocal_of_b) {
    const Pair found = value_of({product(e.mantissa, reciprocal_of_b), e.exponent});
    return found.hi < 1.1754943508222875e-38f ? Pair{0.0f, 0.0f} : found;
}

// 1 / (1 + exp(-x)).
TOOLKIT_BOTH Pair sigmoid(float x) {
    if (is_nan(x)) return {x, x};
    const Exponential e = exponential({x < 0 ? x : -x, 0.0f});
    const Pair inverse = reciprocal(sum({1.0f, 0.0f}, value_of(e)));
    return x < 0 ? exact_share(e, inverse) : inverse;
}

// exp(x - peak) over a sum of such, whose reciprocal is given.
TOOLKIT_BOTH Pair softmax(float x, float peak, Pair reciprocal_of_mass) {
    if (!is_finite(peak)) return {not_a_number(), 0.0f};  // inf - inf, or NaN
    return exact_share(exponential_below(x, peak), reciprocal_of_mass);
}

}  // namespace toolkit
