"""From deviations to verdicts: holds every output of a candidate against its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.feeds import Case
from toolkit.parity.budget import budget_checks, pool
from toolkit.parity.compare import Deviation
from toolkit.parity.limits import (
    Healthy,
    Limits,
    healthy_divergence,
    healthy_errors,
    limits,
)
from toolkit.parity.measure import Broken, Measurements
from toolkit.parity.options import OutputSpec, Tolerance
from toolkit.parity.results import Check, Gate, Level, Status, Verdict, WorstCase

__all__ = ["Judged", "Judging", "judge_output", "judged_cases", "worst_cases"]


@dataclass(frozen=True)
class Judging:
    """What a candidate is held against.

    Attributes:
        candidate: Its name.
        level: Of the gates on single cases: G1 in float32, G2 in half precision.
        budgeted: Whether the classes of cases are held against the budget as well.
    """

    candidate: str
    level: Level
    budgeted: bool
    cases: Sequence[Case]
    baselines: Sequence[Measurements]
    tolerance: Tolerance


@dataclass(frozen=True)
class Judged:
    """One output of one case with its limits and the healthy error, if there was a baseline."""

    case: Case
    deviation: Deviation
    limits: Limits
    healthy: Healthy | None

    @property
    def excess(self) -> float:
        """The larger of rms and max error, each over its limit; infinite if not comparable."""
        if self.deviation.mismatches:
            return float("inf")
        return max(
            _over(self.deviation.rms, self.limits.rms), _over(self.deviation.max, self.limits.max)
        )


def _over(measured: float, limit: float | None) -> float:
    if limit is None:
        return 0.0
    if limit > 0:
        return measured / limit
    return float("inf") if measured > 0 else 0.0


def judged_cases(
    cases: Sequence[Case],
    measured: Measurements,
    baselines: Sequence[Measurements],
    output: OutputSpec,
    tolerance: Tolerance,
) -> list[Judged]:
    """The cases that gave this output, in order."""
    kinds = [case.kind for case in cases]
    healthy = healthy_errors(baselines, kinds, output.name)
    found = []
    for index, case in enumerate(cases):
        deviation = measured[index, output.name]
        if isinstance(deviation, Deviation):
            normal = healthy.get(index)
            found.append(Judged(case, deviation, limits(deviation, normal, tolerance), normal))
    return found


def judge_output(
    judging: Judging,
    output: OutputSpec,
    measured: Measurements,
    judged: Sequence[Judged],
) -> Verdict:
    """Hold one output of one candidate against every gate that looks at numbers."""
    level = judging.level
    checks = [
        _ran(level, judging.cases, measured, output),
        _finite(level, judged),
        _rms(level, judged),
        _max(level, judged),
    ]
    if judging.budgeted:
        pools = [pool(baseline, judging.cases, output.name) for baseline in judging.baselines]
        mine = pool(measured, judging.cases, output.name)
        checks += budget_checks(mine, pools, judging.tolerance)
    if output.space != "values":
        checks += [_choice(judged), _divergence(judging, output, judged)]
    return Verdict(judging.candidate, output.name, output.space, tuple(checks))


def worst_cases(
    candidate: str, judged: Mapping[str, Sequence[Judged]], count: int
) -> tuple[WorstCase, ...]:
    """The cases nearest to a limit or farthest over it, over all outputs, worst first."""
    every = [(output, one) for output, found in judged.items() for one in found]
    every.sort(key=lambda pair: -pair[1].excess)
    return tuple(_worst_case(candidate, output, one) for output, one in every[:count])


def _worst_case(candidate: str, output: str, one: Judged) -> WorstCase:
    deviation = one.deviation
    point = deviation.first_mismatch or deviation.worst
    return WorstCase(
        candidate=candidate,
        output=output,
        case=one.case.name,
        rms=deviation.rms,
        rms_limit=one.limits.rms,
        max=deviation.max,
        max_limit=one.limits.max,
        index=point.index if point else (),
        reference=f"{point.reference:.9g}" if point else "",
        found=f"{point.candidate:.9g}" if point else "",
    )


def _ran(level: Level, cases: Sequence[Case], measured: Measurements, output: OutputSpec) -> Check:
    broken = [
        (case.name, result.reason)
        for index, case in enumerate(cases)
        if isinstance(result := measured[index, output.name], Broken)
    ]
    if not broken:
        return Check(level, "ran", "pass", 0.0, 0.0, "", f"all {len(cases)} cases ran")
    name, reason = broken[0]
    detail = f"{len(broken)} of {len(cases)} cases gave no comparable output: {reason}"
    return Check(level, "ran", "fail", float(len(broken)), 0.0, name, detail)


def _finite(level: Level, judged: Sequence[Judged]) -> Check:
    if not judged:
        return _not_run(level, "finite")
    total = sum(one.deviation.mismatches for one in judged)
    if total == 0:
        detail = "finite, infinite and NaN where the reference is"
        return Check(level, "finite", "pass", 0.0, 0.0, "", detail)
    first = next(one for one in judged if one.deviation.mismatches)
    point = first.deviation.first_mismatch
    assert point is not None
    detail = (
        f"{total} {'value is' if total == 1 else 'values are'} not comparable, the first"
        f" {point.candidate:.6g} at {list(point.index)} where the reference is"
        f" {point.reference:.6g}"
    )
    return Check(level, "finite", "fail", float(total), 0.0, first.case.name, detail)


def _rms(level: Level, judged: Sequence[Judged]) -> Check:
    held = [one for one in judged if one.limits.rms is not None]
    title = "root mean square error"
    return _bound(level, "rms", held, lambda d: d.rms, lambda one: one.limits.rms or 0.0, title)


def _max(level: Level, judged: Sequence[Judged]) -> Check:
    return _bound(
        level, "max", judged, lambda d: d.max, lambda one: one.limits.max, "largest error"
    )


def _bound(  # noqa: PLR0913, PLR0917  (what is measured, against what, and in which words)
    level: Level,
    gate: Gate,
    judged: Sequence[Judged],
    measure: Callable[[Deviation], float],
    limit: Callable[[Judged], float],
    title: str,
) -> Check:
    """Hold the case nearest to its limit, or farthest over it, against the limit."""
    if not judged:
        return _not_run(level, gate)
    worst = max(judged, key=lambda one: _over(measure(one.deviation), limit(one)))
    measured, bound = measure(worst.deviation), limit(worst)
    status, relation = ("pass", "within") if measured <= bound else ("fail", "over")
    unit = "of the output's scale" if worst.deviation.eps else "in whole units"
    detail = f"{title} {measured:.2e} {unit}, {relation} the limit {bound:.2e}"
    detail += _against(worst, gate)
    return Check(
        level,
        gate,
        "pass" if status == "pass" else "fail",
        measured,
        bound,
        worst.case.name,
        detail,
    )


def _against(worst: Judged, gate: Gate) -> str:
    """The healthy error, in words, where there is one."""
    if worst.healthy is None:
        return ""
    normal = worst.healthy.rms if gate == "rms" else worst.healthy.max
    return f" (PyTorch's own error is {normal:.2e})"


def _choice(judged: Sequence[Judged]) -> Check:
    """A reference margin above twice the allowed error must not be lost."""
    found = [one for one in judged if one.deviation.behaviour is not None]
    if not any(one.deviation.behaviour.rows for one in found if one.deviation.behaviour):
        return _not_run("G3", "choice")
    worst = max(found, key=lambda one: _over(_lost(one), _allowed(one)))
    measured, limit = _lost(worst), _allowed(worst)
    rows = sum(one.deviation.behaviour.rows for one in found if one.deviation.behaviour)
    agreed = sum(one.deviation.behaviour.agreed for one in found if one.deviation.behaviour)
    detail = f"the most probable outcome agrees in {agreed} of {rows} rows"
    if measured > limit:
        detail += f"; a margin of {measured:.3g} was lost, an error may only cost {limit:.3g}"
        return Check("G3", "choice", "fail", measured, limit, worst.case.name, detail)
    return Check("G3", "choice", "pass", measured, limit, worst.case.name, detail)


def _divergence(judging: Judging, output: OutputSpec, judged: Sequence[Judged]) -> Check:
    """KL grows with the square of the error, so it may be the square of the ratio larger."""
    found = [one for one in judged if one.deviation.behaviour and one.deviation.behaviour.rows]
    if not found:
        return _not_run("G3", "divergence")
    factor = judging.tolerance.max_ratio**2
    normal = healthy_divergence(judging.baselines, [c.kind for c in judging.cases], output.name)

    def limit(one: Judged) -> float:
        index = judging.cases.index(one.case)
        return max(factor * normal.get(index, 0.0), _least_divergence(one, output, judging))

    worst = max(found, key=lambda one: _over(_kl(one), limit(one)))
    measured, bound = _kl(worst), limit(worst)
    passed = measured <= bound
    detail = (
        f"divergence from the reference {measured:.2e} nats, {'within' if passed else 'over'} the"
        f" limit {bound:.2e}"
    )
    status: Status = "pass" if passed else "fail"
    return Check("G3", "divergence", status, measured, bound, worst.case.name, detail)


def _least_divergence(one: Judged, output: OutputSpec, judging: Judging) -> float:
    """What errors at the floor of the error limits may cost: KL <= half their square, in logits.

    Probabilities near zero cost up to their error, which is no smaller than the spacing at 1.
    """
    deviation = one.deviation
    floor = judging.tolerance.floor_ulps * deviation.eps
    if output.space == "probabilities":
        return floor
    return max(floor, 0.5 * (floor * deviation.peak) ** 2)


def _kl(one: Judged) -> float:
    return one.deviation.behaviour.kl_max if one.deviation.behaviour else 0.0


def _lost(one: Judged) -> float:
    return one.deviation.behaviour.lost_margin if one.deviation.behaviour else 0.0


def _allowed(one: Judged) -> float:
    return 2.0 * one.limits.max * one.deviation.scale


def _not_run(level: Level, gate: Gate) -> Check:
    return Check(level, gate, "not run", 0.0, 0.0, "", "there was nothing to compare with")
