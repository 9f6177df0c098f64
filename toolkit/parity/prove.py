"""The proof: reference, baseline and candidates over the same cases, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.judge import Judged, judge_output, judged_cases, worst_cases
from toolkit.parity.measure import Broken, Measurements, measure, record
from toolkit.parity.options import OutputSpec, ParityOptions
from toolkit.parity.results import ClassResult, ParityReport, RunCase, Verdict, WorstCase
from toolkit.parity.store import OutputStore
from toolkit.parity.tables import class_results
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Runner

__all__ = ["prove"]


def prove(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    reference: Runner,
    baselines: Sequence[Runner],
    candidates: Sequence[Runner],
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    options: ParityOptions | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Compare every candidate with the reference, and judge the difference by the baseline's.

    Each runner is entered once, runs all cases and is left before the next is entered, so two
    models are never in memory together.

    Args:
        reference: Gives the right answers, in float64 where that fits.
        baselines: The same computation in the candidates' precision, as it is and with weights
            moved by a rounding; the largest of their errors is what a healthy candidate may have,
            several times over. The first is the one whose numbers are reported. Without any, only
            the bound on the largest error, the finite and the choice gates judge, and the rms
            gate is ``not run``.
        candidates: What is to be shipped, by runtime; their names must differ.
        cases: Inputs, most telling first.
        outputs: What to compare.
        options: Bounds and memory.
        progress: Called with the runner's name after every case.

    Raises:
        ParityError: If there is nothing to compare, the reference lacks an output or a baseline
            cannot run a case. A proof that fails is returned, not raised.
    """
    _require_something(candidates, cases, outputs)
    options = options or ParityOptions()
    with OutputStore(options.memory_bytes) as store:
        record(reference, cases, outputs, store, progress)
        healthy = [measure(one, cases, outputs, store, progress) for one in baselines]
        for errors in healthy:
            _require_whole(errors, cases)
        measured = [
            (candidate.name, measure(candidate, cases, outputs, store, progress))
            for candidate in candidates
        ]
    findings = [
        _judge(name, deviations, healthy, cases, outputs, options) for name, deviations in measured
    ]
    verdicts = tuple(verdict for found in findings for verdict in found[0])
    return ParityReport(
        verdict="pass" if all(verdict.passed for verdict in verdicts) else "fail",
        reference=reference.name,
        baseline=baselines[0].name if baselines else None,
        candidates=tuple(candidate.name for candidate in candidates),
        tolerance=options.tolerance,
        cases=tuple(RunCase(case.name, case.kind, dict(case.dims)) for case in cases),
        verdicts=verdicts,
        classes=tuple(row for found in findings for row in found[1]),
        healthy=_healthy_rows(baselines, healthy, cases, outputs, options),
        worst=tuple(case for found in findings for case in found[2]),
    )


def _judge(  # noqa: PLR0913, PLR0917
    name: str,
    measured: Measurements,
    baselines: Sequence[Measurements],
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    options: ParityOptions,
) -> tuple[list[Verdict], list[ClassResult], tuple[WorstCase, ...]]:
    verdicts: list[Verdict] = []
    rows: list[ClassResult] = []
    judged: dict[str, Sequence[Judged]] = {}
    for output in outputs:
        found = judged_cases(cases, measured, baselines, output, options.tolerance)
        judged[output.name] = found
        verdicts.append(judge_output(name, output, cases, measured, found))
        rows.extend(class_results(name, output.name, found, options.tolerance))
    return verdicts, rows, worst_cases(name, judged, options.worst)


def _healthy_rows(
    baselines: Sequence[Runner],
    measured: Sequence[Measurements],
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    options: ParityOptions,
) -> tuple[ClassResult, ...]:
    """The first baseline's own numbers; they are not held against a limit."""
    if not baselines:
        return ()
    rows: list[ClassResult] = []
    for output in outputs:
        found = judged_cases(cases, measured[0], [], output, options.tolerance)
        rows.extend(class_results(baselines[0].name, output.name, found, options.tolerance))
    return tuple(replace(row, max_limit=None) for row in rows)


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
