"""The numbers of a report: one output over all cases of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from toolkit.parity.behaviour import Behaviour
from toolkit.parity.compare import Deviation
from toolkit.parity.histogram import LogHistogram
from toolkit.parity.judge import Judged
from toolkit.parity.limits import Healthy
from toolkit.parity.options import Tolerance
from toolkit.parity.results import ClassResult

__all__ = ["class_results"]


def class_results(
    candidate: str, output: str, judged: Sequence[Judged], tolerance: Tolerance
) -> tuple[ClassResult, ...]:
    """One row for each kind of case, in the order the kinds were run."""
    kinds = dict.fromkeys(one.case.kind for one in judged)
    return tuple(
        _row(candidate, output, kind, [one for one in judged if one.case.kind == kind], tolerance)
        for kind in kinds
    )


def _row(
    candidate: str, output: str, kind: str, judged: Sequence[Judged], tolerance: Tolerance
) -> ClassResult:
    deviations = [one.deviation for one in judged]
    histogram = LogHistogram()
    for deviation in deviations:
        histogram.merge(deviation.histogram)
    largest = max(deviation.max for deviation in deviations)
    p50, p95, p99 = (min(histogram.quantile(q), largest) for q in (0.5, 0.95, 0.99))
    choice = _behaviour(deviations)
    return ClassResult(
        candidate=candidate,
        output=output,
        kind=kind,
        cases=len(judged),
        n=sum(deviation.n for deviation in deviations),
        p50=p50,
        p95=p95,
        p99=p99,
        max=largest,
        max_absolute=max(deviation.max * deviation.scale for deviation in deviations),
        mismatches=sum(deviation.mismatches for deviation in deviations),
        kl_mean=choice.kl_sum / choice.rows if choice and choice.rows else None,
        kl_max=choice.kl_max if choice and choice.rows else None,
        rows=choice.rows if choice else 0,
        agreed=choice.agreed if choice else 0,
        histogram=histogram.octaves(),
        **vars(_ratios(judged, tolerance)),
    )


@dataclass(frozen=True)
class _Ratios:
    rms: float
    baseline_rms: float | None
    ratio: float | None
    rms_limit: float | None
    max_limit: float | None


def _ratios(judged: Sequence[Judged], tolerance: Tolerance) -> _Ratios:
    rms = _mean_square_root([one.deviation.rms for one in judged])
    healthy: list[Healthy] = [one.healthy for one in judged if one.healthy is not None]
    strictest = min(one.limits.max for one in judged)
    rms_limits = [one.limits.rms for one in judged if one.limits.rms is not None]
    if not healthy:
        return _Ratios(rms, None, None, None, strictest)
    normal = _mean_square_root([one.rms for one in healthy])
    # The floor is a limit, so the smallest healthy error that can matter is the floor's share.
    floor = tolerance.floor_ulps * judged[0].deviation.eps / max(tolerance.rms_ratio, 1.0)
    against = max(normal, floor)
    ratio = rms / against if against > 0 else None
    return _Ratios(rms, normal, ratio, min(rms_limits), strictest)


def _mean_square_root(errors: Sequence[float]) -> float:
    return sqrt(sum(error * error for error in errors) / len(errors))


def _behaviour(deviations: Sequence[Deviation]) -> Behaviour | None:
    found = [deviation.behaviour for deviation in deviations if deviation.behaviour is not None]
    if not found:
        return None
    total = Behaviour()
    for behaviour in found:
        total.merge(behaviour)
    return total
