"""The error each case is allowed, from the healthy error of PyTorch in the same precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.parity.compare import Deviation
from toolkit.parity.measure import Broken, Measurements
from toolkit.parity.options import Tolerance

__all__ = ["Healthy", "Limits", "healthy_errors", "limits"]


@dataclass(frozen=True)
class Healthy:
    """The baseline's errors in one case, or the median of its class where that is larger."""

    rms: float
    max: float


@dataclass(frozen=True)
class Limits:
    """The most a case may deviate, relative to its scale; ``rms`` is None without a baseline."""

    rms: float | None
    max: float


def healthy_errors(baseline: Measurements, kinds: Sequence[str], output: str) -> dict[int, Healthy]:
    """The healthy error of each case that the baseline could run, by the case's index."""
    found = {
        index: deviation
        for index in range(len(kinds))
        if isinstance(deviation := baseline.get((index, output), Broken("")), Deviation)
    }
    typical = {kind: _typical(found, kinds, kind) for kind in dict.fromkeys(kinds)}
    return {
        index: Healthy(
            max(deviation.rms, typical[kinds[index]].rms),
            max(deviation.max, typical[kinds[index]].max),
        )
        for index, deviation in found.items()
    }


def _typical(found: Mapping[int, Deviation], kinds: Sequence[str], kind: str) -> Healthy:
    alike = [deviation for index, deviation in found.items() if kinds[index] == kind]
    if not alike:
        return Healthy(0.0, 0.0)
    return Healthy(median(d.rms for d in alike), median(d.max for d in alike))


def limits(deviation: Deviation, healthy: Healthy | None, tolerance: Tolerance) -> Limits:
    """The bounds of ``Tolerance`` for one output of one case."""
    floor = tolerance.floor_ulps * deviation.eps
    largest = [tolerance.max_relative if deviation.eps else 0.0]
    largest.append(floor * deviation.peak / deviation.scale)
    if healthy is None:
        return Limits(None, max(largest))
    largest.append(tolerance.max_ratio * healthy.max)
    return Limits(max(tolerance.rms_ratio * healthy.rms, floor), max(largest))
