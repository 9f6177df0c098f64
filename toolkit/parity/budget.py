"""The budget: the error of a class of cases against PyTorch's in the same precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from toolkit.feeds import Case
from toolkit.parity.compare import Deviation
from toolkit.parity.histogram import LogHistogram
from toolkit.parity.measure import Broken, Measurements
from toolkit.parity.options import Tolerance
from toolkit.parity.results import Check, Gate

__all__ = ["Pooled", "budget_checks", "pool", "slack"]


@dataclass(frozen=True)
class Pooled:
    """The errors of one output over the cases of one class, relative to each case's scale.

    Attributes:
        rows: Rows of the last axis.
        floor: Spacing of the precision at 1, in units of the scale: the largest of any case.
        rms: Every case weighing the same.
    """

    rows: int
    eps: float
    floor: float
    rms: float
    p99: float
    max: float


def pool(measured: Measurements, cases: Sequence[Case], output: str) -> dict[str, Pooled]:
    """The errors by class of cases; cases that gave no output are left out."""
    classes: dict[str, list[Deviation]] = {}
    for index, case in enumerate(cases):
        deviation = measured.get((index, output), Broken(""))
        if isinstance(deviation, Deviation):
            classes.setdefault(case.kind, []).append(deviation)
    return {kind: _pooled(deviations) for kind, deviations in classes.items()}


def _pooled(deviations: Sequence[Deviation]) -> Pooled:
    histogram = LogHistogram()
    for deviation in deviations:
        histogram.merge(deviation.histogram)
    largest = max(d.max for d in deviations)
    return Pooled(
        rows=sum(d.rows for d in deviations),
        eps=max(d.eps for d in deviations),
        floor=max(d.eps * max(1.0, d.peak / d.scale) for d in deviations),
        rms=sqrt(sum(d.rms**2 for d in deviations) / len(deviations)),
        p99=min(histogram.quantile(0.99), largest),
        max=largest,
    )


def slack(rows: int) -> float:
    """What the ratio of two samples of ``rows`` rows may be off by: 1 for many."""
    return 1.0 + 4.0 / sqrt(max(rows, 1))


def budget_checks(
    candidate: Mapping[str, Pooled],
    baselines: Sequence[Mapping[str, Pooled]],
    tolerance: Tolerance,
) -> list[Check]:
    """Hold every class against the budget; the check names the class nearest to its limit."""
    kinds = [kind for kind in candidate if any(kind in baseline for baseline in baselines)]
    if not kinds:
        reason = "there was no PyTorch of the same precision to compare with"
        return [Check("G2", gate, "not run", 0.0, 0.0, "", reason) for gate in _FIGURES]
    return [_check(gate, kinds, candidate, baselines, tolerance) for gate in _FIGURES]


_FIGURES: Mapping[Gate, tuple[str, str]] = {
    "budget rms": ("rms", "root mean square error"),
    "budget p99": ("p99", "99th percentile of the errors"),
    "budget max": ("max", "largest error"),
}


def _check(
    gate: Gate,
    kinds: Sequence[str],
    candidate: Mapping[str, Pooled],
    baselines: Sequence[Mapping[str, Pooled]],
    tolerance: Tolerance,
) -> Check:
    figure, title = _FIGURES[gate]
    ratio = getattr(tolerance, f"budget_{figure}")
    worst, held = "", (0.0, 0.0, 0.0)
    for kind in kinds:
        mine = candidate[kind]
        normal = max(getattr(one[kind], figure) for one in baselines if kind in one)
        # Averages and percentiles need no more than half a unit: what rounding the output costs.
        # A baseline without any error is the reference itself (ONNX members) and shows no budget.
        whole = figure == "max" or normal == 0
        least = tolerance.floor_ulps * mine.floor if whole else 0.5 * mine.eps
        limit = max(ratio * slack(mine.rows) * normal, least)
        found = getattr(mine, figure)
        if not worst or _over(found, limit) > _over(held[0], held[1]):
            worst, held = kind, (found, limit, normal)
    measured, limit, normal = held
    passed = measured <= limit
    detail = (
        f"{title} {measured:.2e} in the {worst} cases, {'within' if passed else 'over'} the limit"
        f" {limit:.2e} (PyTorch's own is {normal:.2e})"
    )
    return Check("G2", gate, "pass" if passed else "fail", measured, limit, "", detail)


def _over(measured: float, limit: float) -> float:
    if limit > 0:
        return measured / limit
    return float("inf") if measured > 0 else 0.0
