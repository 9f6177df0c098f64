"""The compiled loops against plain NumPy, and against exact rounding."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from toolkit.merge.kernels import (
    BLOCK,
    combine,
    delta_sum,
    first_nonfinite,
    gram,
    inner_products,
    mask_top,
    masked_mass,
    random_bits,
    weighted_sum,
)
from toolkit.merge.kernels.philox import key, threshold
from toolkit.merge.kernels.selection import (
    LOWER,
    UPPER,
    kth_from_top,
    lower_histogram,
    upper_histogram,
)
from toolkit.merge.kernels.sums import round_into

SIZE = 2500  # two whole blocks and a rest


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def value(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def nearest_even(exact: Fraction) -> int:
    """The bfloat16 bits of a positive number, by the definition of rounding."""
    exponent = max(math.floor(math.log2(exact)), -126)
    step = Fraction(2) ** (exponent - 7)
    count = exact / step
    whole = count.numerator // count.denominator
    rest = count - whole
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    return int(bfloat16(np.float32(whole * step))[()])


def models(dtype: str, count: int = 3) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, SIZE))
    return bfloat16(rows) if dtype == "bfloat16" else rows.astype(dtype)


def widened(rows: np.ndarray) -> np.ndarray:
    return value(rows) if rows.dtype == np.uint16 else rows.astype(np.float64)


def test_rounding_to_bfloat16_is_to_nearest_even_and_happens_once():
    # Just beside the middle of two neighbours: float32 first would land on the middle.
    middles = [1 + (2 * i + 1) / 256 for i in range(64)]
    values = [m * (1 + s * 2.0**-45) for m in middles for s in (-1, 0, 1)]
    values += [2.0**-133 * 1.5, 2.0**-126, 3e38]
    out = np.empty(len(values), np.uint16)
    round_into(np.array(values), out)
    assert out.tolist() == [nearest_even(Fraction(v)) for v in values]


def test_negative_values_round_as_their_mirror_images():
    values = np.random.default_rng(1).normal(size=SIZE)
    up, down = np.empty(SIZE, np.uint16), np.empty(SIZE, np.uint16)
    round_into(values, up)
    round_into(-values, down)
    assert np.array_equal(up ^ 0x8000, down)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_a_weighted_sum_is_the_float64_sum_in_row_order(dtype):
    rows, weights, out = models(dtype), np.array([0.2, 0.3, 0.5]), np.empty(SIZE)
    weighted_sum(rows, weights, out)
    wide = widened(rows)
    assert np.array_equal(out, (0.2 * wide[0] + 0.3 * wide[1]) + 0.5 * wide[2])


def test_a_sum_of_task_vectors_with_weight_0_is_the_base_bit_for_bit():
    rows, out = models("bfloat16"), np.empty(SIZE, np.uint16)
    delta_sum(rows, np.array([9.0, 0.0, 0.0]), out)
    assert np.array_equal(out, rows[0])


@pytest.mark.parametrize("relative", [False, True])
def test_inner_products_agree_with_numpy_and_do_not_depend_on_the_chunks(relative):
    rows = models("float32")
    whole, parts = np.zeros((3, 3, BLOCK)), np.zeros((3, 3, BLOCK))
    gram(rows, relative, 0, 1, whole)
    gram(rows[:, :1024], relative, 0, 1, parts)
    gram(rows[:, 1024:], relative, 1, 1, parts)
    assert np.array_equal(whole, parts)
    wide = widened(rows)
    if relative:
        wide[1:] -= wide[0]
    assert np.allclose(inner_products(whole), wide @ wide.T, rtol=1e-12)


def test_a_stride_looks_at_every_so_many_blocks():
    rows, sampled = models("float64"), np.zeros((3, 3, BLOCK))
    gram(rows, False, 0, 2, sampled)
    wide = np.concatenate([rows[:, :1024], rows[:, 2048:]], axis=1)
    assert np.allclose(inner_products(sampled), wide @ wide.T, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_first_value_that_is_not_finite_is_found(dtype, bad):
    row = models(dtype)[0].copy()
    assert first_nonfinite(row) == -1
    row[1500:] = bfloat16(np.array([bad]))[0] if dtype == "bfloat16" else bad
    assert first_nonfinite(row) == 1500


def top(row: np.ndarray, base: np.ndarray, k: int) -> np.ndarray:
    counts = np.zeros(UPPER, np.int64)
    upper_histogram(row, base, counts)
    upper, rest = kth_from_top(counts, k)
    counts = np.zeros(LOWER, np.int64)
    lower_histogram(row, base, upper, counts)
    lower, quota = kth_from_top(counts, rest)
    mask = np.empty(row.size, np.uint8)
    left = mask_top(row, base, upper << 15 | lower, quota, mask)
    assert left == 0
    return mask


@pytest.mark.parametrize("k", [1, 7, 1249, 2499, 2500])
def test_the_top_k_are_those_of_a_stable_sort(k):
    # Multiples of an eighth: most magnitudes occur many times.
    row = np.round(np.random.default_rng(2).normal(size=SIZE) * 8).astype(np.float32) / 8
    base = np.zeros(SIZE, np.float32)
    expected = np.zeros(SIZE, np.uint8)
    expected[np.argsort(-np.abs(row), kind="stable")[:k]] = 1
    assert np.array_equal(top(row, base, k), expected)


def reference_combine(rows, masks, weights, factors, *, elect, normalize, scale):
    wide = widened(rows)
    deltas = weights[:, None] * (factors[:, None] * (wide[1:] - wide[0])) * masks
    taken = np.ones_like(deltas)
    if elect:
        sign = np.where(deltas.sum(0) >= 0, 1, -1)
        taken = np.sign(deltas) == sign
    total = (deltas * taken).sum(0)
    if normalize:
        divisor = (weights[:, None] * taken).sum(0)
        total = total / np.where(divisor == 0, 1, divisor)
    return wide[0] + scale * total


@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_task_vectors_combine_as_the_formula_says(dtype, elect, normalize):
    rows = models(dtype)
    masks = np.random.default_rng(3).integers(0, 2, (2, SIZE)).astype(np.uint8)
    weights, factors = np.array([0.7, 0.4]), np.array([2.0, 1.0])
    out, counts = np.empty(SIZE), np.zeros(2, np.int64)
    combine(rows, masks, weights, factors, elect, normalize, 0.8, out, counts)
    expected = reference_combine(
        rows, masks, weights, factors, elect=elect, normalize=normalize, scale=0.8
    )
    assert np.allclose(out, expected, rtol=1e-14, atol=1e-14)
    deltas = (widened(rows)[1:] - widened(rows)[0]) * masks
    conflicts = int(np.sum(deltas[0] * deltas[1] < 0))
    assert counts.tolist() == [conflicts, conflicts if elect else 0]


def test_masses_are_sums_of_magnitudes():
    rows, sums = models("float32"), np.zeros(2)
    mask = np.random.default_rng(3).integers(0, 2, SIZE).astype(np.uint8)
    masked_mass(rows[1], rows[0], mask, sums)
    tau = np.abs(rows[1].astype(np.float64) - rows[0])
    assert np.allclose(sums, [tau.sum(), tau[mask == 1].sum()], rtol=1e-12)


def test_philox_gives_the_published_sequence():
    # Known answer of Random123's kat_vectors for philox4x32-10 with counter 0 and key 0.
    bits = random_bits((0, 0), 0, 4096).reshape(4, 1024)
    assert [int(x) for x in bits[:, 0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_random_bits_do_not_depend_on_where_a_chunk_starts():
    whole = random_bits((1, 2), 0, 10000)
    for start, stop in ((0, 5000), (4096, 10000), (4097, 9000), (37, 41)):
        assert np.array_equal(random_bits((1, 2), start, stop - start), whole[start:stop])


def test_keys_differ_by_seed_model_and_tensor():
    keys = {key(0, "a", "x"), key(1, "a", "x"), key(0, "b", "x"), key(0, "a", "y")}
    assert len(keys) == 4


def test_draws_fall_below_the_threshold_as_often_as_asked():
    share = float(np.mean(random_bits((3, 4), 0, 1 << 18) < threshold(0.3)))
    assert abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / (1 << 18))
