"""What a graph of low precision is held to: the task, not the rounding of floats.

Codes of 8 or 4 bits move every value by far more than a rounding, so bounds that prove a float
graph say nothing here. What is proven is that the answers stay: the share of rows whose choice is
the reference's, the mean divergence of distributions, and the error of other outputs, all over the
real inputs where there are some, else over the random ones. Inputs at the edges have to run and to
give finite numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

from toolkit.feeds import Case
from toolkit.parity.behaviour import Behaviour
from toolkit.parity.compare import Deviation
from toolkit.parity.judge import Judged, judged_cases, worst_cases
from toolkit.parity.measure import Broken, Measurements, measure, record
from toolkit.parity.options import OutputSpec, ParityOptions
from toolkit.parity.results import (
    Check,
    ClassResult,
    Gate,
    ParityReport,
    RunCase,
    Verdict,
    WorstCase,
    verdict_of,
)
from toolkit.parity.store import OutputStore
from toolkit.parity.tables import class_results
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Runner

__all__ = ["QuantisedBudget", "prove_quantised"]


@dataclass(frozen=True)
class QuantisedBudget:
    """How far low precision may change the answers.

    Attributes:
        agreement: Least share of rows whose most probable outcome is the reference's.
        divergence: Largest mean of KL(reference || candidate), in nats.
        error: Largest root mean square error of outputs that are no distributions, relative to
            their scale.
    """

    agreement: float = 0.99
    divergence: float = 0.02
    error: float = 0.05

    def __str__(self) -> str:
        return (
            f"at least {self.agreement:.4g} of choices agree, mean KL at most {self.divergence:g} "
            f"nats, rms error of other values at most {self.error:g}"
        )


def prove_quantised(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    reference: Runner,
    candidates: Sequence[Runner],
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    options: ParityOptions,
    budget: QuantisedBudget,
    progress: Progress = silent,
) -> ParityReport:
    """Hold quantised graphs against the reference by a budget of their own.

    Args:
        reference: Gives the right answers.
        candidates: The quantised graph, by runtime.
        cases: Inputs.
        outputs: What to compare.
        options: Time and memory; its bounds are not used.
        budget: The bounds.
        progress: Told of every case.
    """
    share = None if options.seconds is None else options.seconds / (1 + len(candidates))
    verdicts: list[Verdict] = []
    classes: list[ClassResult] = []
    worst: list[WorstCase] = []
    with OutputStore(options.memory_bytes) as store:
        ran = record(reference, cases, outputs, store, progress, share)
        used = cases[:ran]
        for runner in candidates:
            with runner as run:
                measured = measure(run, used, outputs, store, "float32", progress)
            judged = {
                output.name: judged_cases(used, measured, [], output, options.tolerance)
                for output in outputs
            }
            for output in outputs:
                every = judged[output.name]
                verdicts.append(_judge(runner.name, output, used, measured, every, budget))
                rows = class_results(runner.name, output.name, every, options.tolerance)
                classes += [replace(row, max_limit=None) for row in rows]
            worst += worst_cases(runner.name, judged, options.worst)
    shown = tuple(RunCase(case.name, case.kind, dict(case.dims)) for case in cases)
    return ParityReport(
        verdict=verdict_of(verdicts, shown[:ran]),
        precision="float32",
        reference=reference.name,
        baseline=None,
        candidates=tuple(runner.name for runner in candidates),
        tolerance=options.tolerance,
        cases=shown[:ran],
        not_run=shown[ran:],
        notes=(),
        files={},
        verdicts=tuple(verdicts),
        classes=tuple(classes),
        healthy=(),
        worst=tuple(worst),
    )


def _judge(  # noqa: PLR0913, PLR0917
    candidate: str,
    output: OutputSpec,
    cases: Sequence[Case],
    measured: Measurements,
    judged: Sequence[Judged],
    budget: QuantisedBudget,
) -> Verdict:
    held = _held(judged)
    checks = [_ran(cases, measured, output), _finite(judged)]
    if not held:
        checks.append(Check("G3", "error", "not run", 0.0, 0.0, "", "no case was compared"))
    elif output.space == "values":
        checks.append(_error(held, budget))
    else:
        checks += _behaviour(held, budget)
    return Verdict(candidate, output.name, output.space, tuple(checks))


def _held(judged: Sequence[Judged]) -> list[Judged]:
    """The cases that the budget is about: real ones, else random ones, else all."""
    for kind in ("real", "random"):
        found = [one for one in judged if one.case.kind == kind]
        if found:
            return found
    return list(judged)


def _ran(cases: Sequence[Case], measured: Measurements, output: OutputSpec) -> Check:
    for index, case in enumerate(cases):
        found = measured[index, output.name]
        if isinstance(found, Broken):
            return Check("G3", "ran", "fail", 1.0, 0.0, case.name, found.reason)
    return Check("G3", "ran", "pass", 0.0, 0.0, "", f"all {len(cases)} cases ran")


def _finite(judged: Sequence[Judged]) -> Check:
    for one in judged:
        point = one.deviation.first_mismatch
        if point is not None:
            detail = (
                f"{one.deviation.mismatches} values are not comparable, the first "
                f"{point.candidate:.6g} where the reference is {point.reference:.6g}"
            )
            count = float(one.deviation.mismatches)
            return Check("G3", "finite", "fail", count, 0.0, one.case.name, detail)
    detail = "finite, infinite and NaN where the reference is"
    return Check("G3", "finite", "pass", 0.0, 0.0, "", detail)


def _behaviour(held: Sequence[Judged], budget: QuantisedBudget) -> list[Check]:
    total = Behaviour()
    for one in held:
        if one.deviation.behaviour is not None:
            total.merge(one.deviation.behaviour)
    kind, rows = held[0].case.kind, max(total.rows, 1)
    lost, mean = 1 - total.agreed / rows, total.kl_sum / rows
    return [
        _check(
            "agreement", lost, 1 - budget.agreement,
            f"of {total.rows} choices in the {kind} cases {total.agreed} agree",
        ),
        _check(
            "mean divergence", mean, budget.divergence,
            f"mean KL {mean:.2e} nats in the {kind} cases",
        ),
    ]  # fmt: skip


def _error(held: Sequence[Judged], budget: QuantisedBudget) -> Check:
    deviations: list[Deviation] = [one.deviation for one in held]
    rms = sqrt(sum(each.rms**2 for each in deviations) / len(deviations))
    what = f"root mean square error {rms:.2e} of the scale in the {held[0].case.kind} cases"
    return _check("error", rms, budget.error, what)


def _check(gate: Gate, measured: float, limit: float, what: str) -> Check:
    passed = measured <= limit
    detail = f"{what}, {'within' if passed else 'over'} the budget {limit:.3g}"
    return Check("G3", gate, "pass" if passed else "fail", measured, limit, "", detail)
