"""The error each case is allowed, from the healthy error of PyTorch in the same precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.parity.compare import Deviation
from toolkit.parity.measure import Broken, Measurements
from toolkit.parity.options import Tolerance

__all__ = ["Healthy", "Limits", "healthy_divergence", "healthy_errors", "limits"]


_HALF = 2.0**-11  # the spacing of float16 at 1 is twice this, that of float32 far below


@dataclass(frozen=True)
class Healthy:
    """The largest baseline error in one case, or the median of its class where that is larger."""

    rms: float
    max: float


@dataclass(frozen=True)
class Limits:
    """The most a case may deviate, relative to its scale; ``rms`` is None without a baseline."""

    rms: float | None
    max: float


def healthy_errors(
    baselines: Sequence[Measurements], kinds: Sequence[str], output: str
) -> dict[int, Healthy]:
    """The healthy error of each case that the baselines could run, by the case's index."""
    largest: dict[int, Healthy] = {}
    for baseline in baselines:
        for index in range(len(kinds)):
            found = baseline.get((index, output), Broken(""))
            if isinstance(found, Deviation):
                known = largest.get(index, Healthy(0.0, 0.0))
                largest[index] = Healthy(max(known.rms, found.rms), max(known.max, found.max))
    typical = {kind: _typical(largest, kinds, kind) for kind in dict.fromkeys(kinds)}
    return {
        index: Healthy(
            max(one.rms, typical[kinds[index]].rms), max(one.max, typical[kinds[index]].max)
        )
        for index, one in largest.items()
    }


def healthy_divergence(
    baselines: Sequence[Measurements], kinds: Sequence[str], output: str
) -> dict[int, float]:
    """The largest KL of any baseline in each case, or the median of its class if that is larger."""
    largest: dict[int, float] = {}
    for baseline in baselines:
        for index in range(len(kinds)):
            found = baseline.get((index, output), Broken(""))
            if isinstance(found, Deviation) and found.behaviour is not None:
                largest[index] = max(largest.get(index, 0.0), found.behaviour.kl_max)
    typical = {
        kind: median([kl for index, kl in largest.items() if kinds[index] == kind] or [0.0])
        for kind in dict.fromkeys(kinds)
    }
    return {index: max(kl, typical[kinds[index]]) for index, kl in largest.items()}


def _typical(found: Mapping[int, Healthy], kinds: Sequence[str], kind: str) -> Healthy:
    alike = [healthy for index, healthy in found.items() if kinds[index] == kind]
    if not alike:
        return Healthy(0.0, 0.0)
    return Healthy(median(h.rms for h in alike), median(h.max for h in alike))


def limits(deviation: Deviation, healthy: Healthy | None, tolerance: Tolerance) -> Limits:
    """The bounds of ``Tolerance`` for one output of one case."""
    floor = tolerance.floor_ulps * deviation.eps
    largest = [tolerance.max_relative if deviation.eps else 0.0]
    largest.append(floor * deviation.peak / deviation.scale)
    if healthy is None:
        return Limits(None, max(largest))
    largest.append(tolerance.max_ratio * healthy.max)
    # A unit of half precision is large: four of them would hide defects of a percent.
    least = floor if deviation.eps < _HALF else min(floor, deviation.eps)
    return Limits(max(tolerance.rms_ratio * healthy.rms, least), max(largest))
