"""The proof: reference, baselines and candidates over the same cases, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.experts import expert_routing, judge_experts, near_cases, shipped_check
from toolkit.parity.judge import Judged, Judging, judge_output, judged_cases, worst_cases
from toolkit.parity.lawful import judge_laws
from toolkit.parity.laws import LawFindings, try_laws
from toolkit.parity.layout import layout_of
from toolkit.parity.loads import ExpertRouting
from toolkit.parity.measure import Broken, Measurements, measure, record
from toolkit.parity.options import OutputSpec, ParityOptions, Precision, Structure
from toolkit.parity.results import (
    Check,
    ClassResult,
    ParityReport,
    RunCase,
    Verdict,
    WorstCase,
    verdict_of,
)
from toolkit.parity.routing import routing
from toolkit.parity.steps import StepErrors, step_errors
from toolkit.parity.store import OutputStore
from toolkit.parity.tables import class_results
from toolkit.parity.tallies import Tallies, Thresholds, thresholds
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Outputs, Runner
from toolkit.runtime.choices import Watched

__all__ = ["prove"]


def prove(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    reference: Runner,
    baselines: Sequence[Runner],
    candidates: Sequence[Runner],
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    options: ParityOptions | None = None,
    progress: Progress = silent,
    structure: Structure | None = None,
) -> ParityReport:
    """Compare every candidate with the reference, one model in memory at a time.

    Args:
        reference: Gives the right answers, in float64 where that fits.
        baselines: The same computation in the candidates' precision, as it is (its numbers are
            reported) and with weights moved by a rounding; the largest of their errors is what a
            healthy candidate may have, several times over. Without any, the rms gate is not run.
        candidates: What is to be shipped, by runtime; their names must differ.
        cases: Inputs, most telling first.
        outputs: What to compare.
        options: Bounds, precision, time and memory.
        progress: Called with the runner's name after every case.
        structure: The same graph in float32, if it ships in half precision.

    Raises:
        ParityError: If there is nothing to compare, the reference lacks an output or a baseline
            cannot run a case. A proof that fails is returned, not raised.
    """
    options = options or ParityOptions()
    groups = _groups(_Group(options.precision, tuple(baselines), tuple(candidates)), structure)
    runners = [runner for group in groups for runner in (*group.baselines, *group.candidates)]
    _require_something([r for group in groups for r in group.candidates], cases, outputs)
    share = None if options.seconds is None else options.seconds / (1 + len(runners))
    with OutputStore(options.memory_bytes) as store:
        ran = record(reference, cases, outputs, store, progress, share)
        routed = routing(reference.name, cases[:ran], outputs, store)
        proof = _Proof(cases[:ran], outputs, options, store, progress, routed.undecided)
        findings = [proof.run(group) for group in groups]
    shown = tuple(RunCase(case.name, case.kind, dict(case.dims)) for case in cases)
    verdicts = _all([*(found.verdicts for found in findings), routed.verdicts])
    return ParityReport(
        verdict=verdict_of(verdicts, shown[:ran]),
        precision=options.precision,
        reference=reference.name,
        baseline=baselines[0].name if baselines else None,
        candidates=tuple(runner.name for group in groups for runner in group.candidates),
        tolerance=options.tolerance,
        cases=shown[:ran],
        not_run=shown[ran:],
        notes=options.notes,
        files={},
        verdicts=verdicts,
        classes=_all(found.classes for found in findings),
        healthy=_all(found.healthy for found in findings),
        worst=_all(found.worst for found in findings),
        steps=_all(found.steps for found in findings),
        experts=_all(found.experts for found in findings),
    )


_T = TypeVar("_T")


def _all(parts: Iterable[Iterable[_T]]) -> tuple[_T, ...]:
    return tuple(item for part in parts for item in part)


@dataclass(frozen=True)
class _Group:
    """Candidates of one precision and the baselines they are judged by."""

    precision: Precision
    baselines: tuple[Runner, ...]
    candidates: tuple[Runner, ...]


def _groups(own: _Group, structure: Structure | None) -> list[_Group]:
    """The float32 graph first, where another precision ships."""
    if structure is None:
        return [own]
    return [_Group("float32", structure.baselines, structure.candidates), own]


@dataclass(frozen=True)
class _Measured:
    """What one runner did."""

    name: str
    cases: Measurements
    laws: LawFindings
    law_case: int
    tallies: Tallies
    shipped: Check | None


@dataclass(frozen=True)
class _Findings:
    verdicts: list[Verdict]
    classes: list[ClassResult]
    healthy: list[ClassResult]
    worst: list[WorstCase]
    steps: list[StepErrors]
    experts: list[ExpertRouting]


@dataclass(frozen=True)
class _Proof:
    """What all runners of a proof share."""

    cases: Sequence[Case]
    outputs: Sequence[OutputSpec]
    options: ParityOptions
    store: OutputStore
    progress: Progress
    undecided: Collection[int] = ()

    def run(self, group: _Group) -> _Findings:
        """Measure and judge a group."""
        near = near_cases(self.store, len(self.cases), group.precision)
        healthy = [self._measure(runner, group, near) for runner in group.baselines]
        for one in healthy:
            _require_whole(one.cases, self.cases)
        limits = thresholds([one.tallies for one in healthy])
        found = _Findings([], [], self._healthy_rows(healthy), [], [], [])
        for runner in group.candidates:
            self._judge(self._measure(runner, group, near, limits), healthy, group, found)
        return found

    def _measure(
        self,
        runner: Runner,
        group: _Group,
        near: frozenset[int],
        limits: Thresholds | None = None,
    ) -> _Measured:
        """Run a runner over everything; ``limits`` are for candidates."""
        precision, tallies = group.precision, Tallies(self.options.causal, limits)
        shown: Outputs | None = None
        with runner as run:
            measured = measure(
                run, self.cases, self.outputs, self.store, precision, self.progress, tallies
            )
            layout = layout_of(self.options.inputs or run.inputs)
            without = near.union(self.undecided)
            law_case, laws = try_laws(run, layout, self.cases, self.outputs, precision, without)
            if isinstance(run, Watched):
                shown = self.cases[law_case].run(run)
        shipped = None
        if isinstance(runner, Watched) and shown is not None and limits is not None:
            shipped = shipped_check(runner, shown, self.cases[law_case], self.outputs, precision)
        return _Measured(runner.name, measured, laws, law_case, tallies, shipped)

    def _judge(
        self, mine: _Measured, healthy: Sequence[_Measured], group: _Group, found: _Findings
    ) -> None:
        tolerance = self.options.tolerance
        structural = group.precision == "float32"
        judging = Judging(
            candidate=mine.name,
            level="G1" if structural else "G2",
            budgeted=group.precision == self.options.precision,
            cases=self.cases,
            baselines=[one.cases for one in healthy],
            tolerance=tolerance,
        )
        judged: dict[str, list[Judged]] = {}
        for output in self.outputs:
            every = judged_cases(self.cases, mine.cases, judging.baselines, output, tolerance)
            judged[output.name] = every
            found.verdicts.append(judge_output(judging, output, mine.cases, every))
            found.classes.extend(class_results(mine.name, output.name, every, tolerance))
            found.steps.extend(
                step_errors(mine.name, output.name, self.cases, mine.cases, judging.baselines)
            )
        tried = self.cases[mine.law_case]
        limits = {
            name: one.limits for name, every in judged.items() for one in every if one.case is tried
        }
        laws = [one.laws for one in healthy]
        found.verdicts.append(judge_laws(mine.name, mine.laws, laws, limits, tried.name, tolerance))
        found.worst.extend(worst_cases(mine.name, judged, self.options.worst))
        found.verdicts.extend(judge_experts(mine.name, mine.tallies, mine.shipped))
        found.experts.extend(expert_routing(mine.name, mine.tallies))

    def _healthy_rows(self, healthy: Sequence[_Measured]) -> list[ClassResult]:
        """The first baseline's own numbers; they are not held against a limit."""
        rows: list[ClassResult] = []
        for one in healthy[:1]:
            for output in self.outputs:
                every = judged_cases(self.cases, one.cases, [], output, self.options.tolerance)
                rows.extend(class_results(one.name, output.name, every, self.options.tolerance))
        return [replace(row, max_limit=None) for row in rows]


def _require_whole(baseline: Measurements, cases: Sequence[Case]) -> None:
    """Without a healthy error a case could only be judged loosely, and nobody would notice."""
    for (index, output), found in baseline.items():
        if isinstance(found, Broken):
            raise ParityError(
                f"the baseline gives no output {output!r} to compare in case"
                f" {cases[index].name!r}: {found.reason}"
            )


def _require_something(
    candidates: Sequence[Runner], cases: Sequence[Case], outputs: Sequence[OutputSpec]
) -> None:
    for what, found in (("candidate", candidates), ("case", cases), ("output", outputs)):
        if not found:
            raise ParityError(f"there is no {what} to compare, so nothing would be proven")
    for what, names in (
        ("candidates", [candidate.name for candidate in candidates]),
        ("cases", [case.name for case in cases]),
        ("outputs", [output.name for output in outputs]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ParityError(f"two {what} are named {twice[0]!r}")
