"""LogHistogram: quantiles within 1/32, merging, and the octaves the report draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.parity.histogram import LogHistogram

values = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(1e-15, 1e6) | st.just(0.0))


def histogram(array) -> LogHistogram:
    found = LogHistogram()
    found.add(np.asarray(array, np.float64))
    return found


@given(values, st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles_are_never_too_small_and_at_most_a_bin_too_large(array, q):
    exact = np.quantile(array, q, method="inverted_cdf")
    found = histogram(array).quantile(q)
    assert exact <= found <= exact * (1 + 1 / 32) + 1e-300


@given(values, values)
def test_merging_is_adding(one, other):
    merged = histogram(one)
    merged.merge(histogram(other))
    both = histogram(np.concatenate([one, other]))
    np.testing.assert_array_equal(merged.counts, both.counts)


@given(values)
def test_octaves_hold_every_value_between_their_powers_of_two(array):
    found = dict(histogram(array).octaves())
    assert sum(found.values()) == len(array)
    for exponent, count in found.items():
        low = 0.0 if exponent == -64 else 2.0 ** (exponent - 1)
        assert count == np.sum((array >= low) & (array < 2.0**exponent))


def test_nothing_counted_has_quantile_zero():
    assert LogHistogram().quantile(0.5) == 0
    assert LogHistogram().octaves() == ()


def test_zero_and_the_very_small_share_the_lowest_bin():
    assert histogram([0.0, 1e-300, 5e-324]).octaves() == ((-64, 3),)


@pytest.mark.parametrize("value", [1e10, 1e300])
def test_the_very_large_share_the_highest_bin(value):
    assert histogram([value]).octaves() == ((33, 1),)
