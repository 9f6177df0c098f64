"""Intervals have the coverage they claim, and verdicts follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.bench.intervals import Estimate, apart, median_ratio, order_ranks, percentile, verdict


@pytest.mark.parametrize(
    ("count", "share", "ranks"),
    [
        (100, 0.5, (40, 61)),  # the sign test's, in any table
        (20, 0.5, (6, 15)),
        (6, 0.5, (1, 6)),
        (5, 0.5, (None, None)),
        (367, 0.99, (359, None)),
        (368, 0.99, (360, 368)),
    ],
)
def test_ranks_are_the_binomial_distributions(count, share, ranks):
    assert order_ranks(count, share) == ranks
    low, high = ranks
    below = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    if low is not None:
        assert sum(below[:low]) <= 0.025 < sum(below[: low + 1])
    if high is not None:
        assert sum(below[high:]) <= 0.025 < sum(below[high - 1 :])


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_interval_covers_the_percentile_as_often_as_it_says(share):
    draw = np.random.default_rng(0)
    truth = -math.log(1 - share)  # of the exponential distribution
    found = [percentile(draw.exponential(size=80), share) for _ in range(600)]
    covered = np.mean([each.low <= truth <= each.high for each in found if each.high is not None])
    assert 0.94 <= covered <= 0.995


def test_a_ratio_of_rounds_forgets_what_hits_both():
    draw = np.random.default_rng(1)
    moments = draw.uniform(1, 9, size=60)
    noise = draw.normal(1, 0.001, size=(2, 60))
    found = median_ratio(1.2 * moments * noise[0], moments * noise[1])
    assert found.low < 1.2 < found.high
    assert found.precision < 0.001
    separately = apart(1.2 * moments, moments)
    assert separately.low < 1.2 < separately.high
    assert separately.precision > 100 * found.precision


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.5, 0.9, "faster"),
        (1.03, 1.1, "slower"),
        (0.99, 1.01, "no difference"),
        (1.01, 1.05, "undecided"),
        (0.9, 1.1, "undecided"),
        (None, 0.5, "undecided"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(low, high, said):
    assert verdict(Estimate(1.0, low, high), 0.02) == said
