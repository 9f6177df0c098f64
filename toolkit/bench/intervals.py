"""Intervals for percentiles and ratios that assume no distribution, and what they say.

An interval for a percentile ends at two order statistics, chosen by the binomial distribution of
how many values lie below it (Hahn and Meeker, *Statistical Intervals*, section 5.2). It holds for
independent values of any distribution. Runs one after another are not quite independent, so such an
interval says the least that is uncertain. Ratios are medians over rounds in which both sides took
turns, with the same kind of interval, which inverts the sign test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "METHOD",
    "Estimate",
    "Verdict",
    "apart",
    "median_ratio",
    "order_ranks",
    "percentile",
    "verdict",
]

METHOD = (
    "95% intervals between order statistics, without a distribution (Hahn and Meeker, Statistical"
    " Intervals, 5.2); ratios are medians over rounds in which both took turns"
)
CONFIDENCE = 0.95

Verdict = Literal["faster", "slower", "no difference", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; an end is None where there were too few values for one."""

    value: float
    low: float | None
    high: float | None

    def scaled(self, factor: float) -> Estimate:
        """In another unit."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimate(self.value * factor, low, high)

    @property
    def precision(self) -> float:
        """Half the interval's width, as a share of the value; infinite without an interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2 / self.value


def order_ranks(
    count: int, share: float, confidence: float = CONFIDENCE
) -> tuple[int | None, int | None]:
    """Ranks, from 1, of the values that bound the percentile ``share`` of what was drawn from.

    Each side is missed with probability (1 - ``confidence``) / 2 at most; None where no value is
    far enough out.
    """
    missed = (1 - confidence) / 2
    steps = np.log(np.arange(count, 0, -1)) - np.log(np.arange(1, count + 1))
    odds = math.log(share) - math.log1p(-share)
    logs = count * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps + odds)])
    below = np.cumsum(np.exp(logs))  # P(B <= k) for k = 0 … count, of B ~ Binomial(count, share)
    low = int(np.searchsorted(below, missed, side="right"))
    high = int(np.searchsorted(below, 1 - missed, side="left")) + 1
    return (low if low >= 1 else None), (high if high <= count else None)


def percentile(
    values: npt.NDArray[np.float64], share: float, confidence: float = CONFIDENCE
) -> Estimate:
    """The percentile ``share`` (0 to 1) of ``values`` [n] with its interval."""
    ordered = np.sort(values)
    low, high = order_ranks(len(ordered), share, confidence)
    return Estimate(
        float(np.quantile(ordered, share)),
        None if low is None else float(ordered[low - 1]),
        None if high is None else float(ordered[high - 1]),
    )


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """The median of the rounds' ratios with its interval."""
    return percentile(np.asarray(numerator) / np.asarray(denominator), 0.5)


def apart(numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64]) -> Estimate:
    """The ratio of two medians that were measured at different times.

    Each median has an interval of half the error, so both hold at once (Bonferroni).
    """
    above, below = (
        percentile(values, 0.5, 1 - (1 - CONFIDENCE) / 2) for values in (numerator, denominator)
    )
    ends = (above.low, above.high, below.low, below.high)
    if None in ends:
        return Estimate(above.value / below.value, None, None)
    a, b, c, d = (float(end) for end in ends if end is not None)
    return Estimate(above.value / below.value, a / d, b / c)


def verdict(ratio: Estimate, margin: float) -> Verdict:
    """What a ratio of times says: its interval against the band of what counts as equal.

    ``faster`` and ``slower`` lie wholly outside 1 / (1 + margin) … 1 + margin, ``no difference``
    wholly inside; what crosses an edge is undecided (as in tests of equivalence, Schuirmann 1987).
    """
    if ratio.low is None or ratio.high is None:
        return "undecided"
    least, most = 1 / (1 + margin), 1 + margin
    if ratio.high < least:
        return "faster"
    if ratio.low > most:
        return "slower"
    return "no difference" if least <= ratio.low and ratio.high <= most else "undecided"
