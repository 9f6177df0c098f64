"""A mergeable histogram of error sizes, so that percentiles need no array of every error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LogHistogram"]

# The top bits of a float64 are its exponent and leading mantissa bits, so shifting the rest away
# bins positive values by size without a logarithm: 32 bins to each power of two.
_SHIFT = 52 - 5
_LOWEST, _HIGHEST = 2.0**-64, 2.0**32
_FIRST = int(np.float64(_LOWEST).view(np.int64)) >> _SHIFT
_BINS = (int(np.float64(_HIGHEST).view(np.int64)) >> _SHIFT) - _FIRST + 1


@dataclass
class LogHistogram:
    """Counts of non-negative values in bins at most 1/32 wide, relative to their lower edge.

    Values under 2**-64, zero included, share one bin below all others; values over 2**32 share
    the last.
    """

    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(_BINS + 1, dtype=np.int64)
    )

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count finite values."""
        bits = np.minimum(values, _HIGHEST).view(np.int64) >> _SHIFT
        self.counts += np.bincount(np.maximum(bits - _FIRST + 1, 0), minlength=_BINS + 1)

    def merge(self, other: LogHistogram) -> None:
        """Add another histogram's counts."""
        self.counts += other.counts

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """The upper edge of the bin that holds the q-quantile: never too small, 3 % too large.

        Zero when it lies in the lowest bin or nothing was counted.
        """
        if self.total == 0:
            return 0.0
        index = int(np.searchsorted(np.cumsum(self.counts), q * self.total))
        return _edge(index)

    def octaves(self) -> tuple[tuple[int, int], ...]:
        """``(exponent, count)``: values in (2**(exponent - 1), 2**exponent], without empty bins.

        Values in the lowest bin are given at its exponent, -64.
        """
        pairs: dict[int, int] = {}
        for index in np.flatnonzero(self.counts):
            exponent = -64 if index == 0 else int((index - 1) // 32) - 63
            pairs[exponent] = pairs.get(exponent, 0) + int(self.counts[index])
        return tuple(sorted(pairs.items()))


def _edge(index: int) -> float:
    if index == 0:
        return 0.0
    bits: Any = np.int64((index + _FIRST) << _SHIFT)
    return float(bits.view(np.float64))
