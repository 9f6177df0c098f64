"""What a proof found: plain frozen values, every number beside the bound it was held against.

All errors and limits are relative to the output's scale in its case (see ``Tolerance``), except
where a field says otherwise. Nothing here depends on the time or the machine's speed, unless a
time limit leaves cases out, so the same files and seed give the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.errors import ParityError
from toolkit.parity.hints import hint_of
from toolkit.parity.loads import ExpertRouting
from toolkit.parity.options import Precision, Space, Tolerance
from toolkit.parity.steps import StepErrors
from toolkit.parity.wire import dump, load

__all__ = [
    "Check",
    "ClassResult",
    "Gate",
    "Level",
    "ParityReport",
    "RunCase",
    "Status",
    "Verdict",
    "WorstCase",
    "verdict_of",
]

Level = Literal["G0", "G1", "G2", "G3", "G4"]
Status = Literal["pass", "fail", "not run"]
Gate = Literal[
    "checker", "domains", "dimensions", "paths", "data",
    "ran", "finite", "rms", "max",
    "budget rms", "budget p99", "budget max",
    "choice", "divergence", "agreement", "mean divergence", "error",
    "routing", "experts", "near ties", "as shipped",
    "repeat", "identical rows", "row order", "one row", "padding content", "padding length",
]  # fmt: skip


@dataclass(frozen=True)
class RunCase:
    """A case: its name, its class and the sizes it uses."""

    name: str
    kind: str
    dims: Mapping[str, int]


@dataclass(frozen=True)
class Check:
    """One bound held against the worst place of one output, or of the whole graph.

    Attributes:
        level: G0 the file, G1 structure in float32, G2 budget at the precision that ships, G3
            behaviour, G4 laws that need no reference.
        gate: Of the numbers: ``ran``: every case ran and gave this output in the reference's shape;
            ``finite``: values are finite, infinite or NaN where the reference's are; ``rms`` and
            ``max``: the error of each case; ``budget …``: the error of each class of cases;
            ``choice``: the largest reference margin lost to another outcome, against twice the
            error allowed; ``divergence``: the largest KL(reference || candidate); ``agreement``,
            ``mean divergence``, ``error``: see ``QuantisedBudget``; ``routing``: the share of rows
            a gate decides by less than rounding; ``experts``: tokens sent to other experts by more
            than rounding may turn; ``near ties``: the share of tokens left out; ``as shipped``:
            what the file differs from its copy that shows its routing. The others:
            ``toolkit.parity.static`` (G0) and ``toolkit.parity.laws`` (G4).
        status: ``not run`` when there was nothing to hold it against; never a pass.
        measured: The figure, of the case nearest to its limit or farthest over it.
        limit: The most it may be.
        case: Where; empty when no case can be named.
        detail: What was found, in words; for ``not run`` the reason.
    """

    level: Level
    gate: Gate
    status: Status
    measured: float
    limit: float
    case: str
    detail: str

    @property
    def excess(self) -> float:
        """Measured over limit; above 1 fails. Infinite where the limit is zero and missed."""
        if self.limit > 0:
            return self.measured / self.limit
        return float("inf") if self.measured > 0 else 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether one output of one candidate is what the reference says.

    ``output`` is empty for what concerns the whole graph: its file, and the laws it must obey.
    """

    candidate: str
    output: str
    space: Space
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check failed, and an output was compared in all its cases."""
        done = {check.gate for check in self.checks if check.status == "pass"}
        if self.failures:
            return False
        compared = done & {"max", "agreement", "error"}
        return not self.output or ({"ran", "finite"} <= done and bool(compared))

    @property
    def failures(self) -> tuple[Check, ...]:
        """The failed checks, most serious first."""
        failed = [check for check in self.checks if check.status == "fail"]
        return tuple(sorted(failed, key=_seriousness))


def _seriousness(check: Check) -> tuple[int, float]:
    """Non-finite values first, then what did not run, then what names a case, by its excess."""
    return {"finite": 0, "ran": 1}.get(check.gate, 2 if check.case else 3), -check.excess


@dataclass(frozen=True)
class ClassResult:
    """The errors of one output of one candidate over the cases of one kind.

    Attributes:
        n: Elements compared.
        p50: Half of the elements have an error up to this; ``p95``, ``p99`` and ``max`` likewise.
        max_absolute: Largest error in the output's own unit.
        rms: Root mean square error, every case weighing the same.
        baseline_rms: The same for the baseline; None without one.
        ratio: ``rms`` over the larger of ``baseline_rms`` and the floor; None without a baseline.
        rms_limit: Smallest rms limit of these cases; ``max_limit`` likewise; None if not judged.
        mismatches: Positions where one side is finite and the other is not.
        kl_mean: Mean divergence KL(reference || candidate) in nats; None unless a distribution.
        kl_max: The largest.
        rows: Distributions compared.
        agreed: Of these, how many have the same most probable outcome.
        histogram: Pairs (exponent, count): errors in (2**(exponent - 1), 2**exponent]; exponent
            -64 holds the errors that are zero.
    """

    candidate: str
    output: str
    kind: str
    cases: int
    n: int
    p50: float
    p95: float
    p99: float
    max: float
    max_absolute: float
    rms: float
    baseline_rms: float | None
    ratio: float | None
    rms_limit: float | None
    max_limit: float | None
    mismatches: int
    kl_mean: float | None
    kl_max: float | None
    rows: int
    agreed: int
    histogram: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class WorstCase:
    """One output of one case, with the element that is farthest off."""

    candidate: str
    output: str
    case: str
    rms: float
    rms_limit: float | None
    max: float
    max_limit: float
    index: tuple[int, ...]
    reference: str
    found: str


@dataclass(frozen=True)
class ParityReport:
    """The outcome of a proof.

    Attributes:
        verdict: ``passed`` only if the file, every output of every candidate and every law did.
        precision: Of the arithmetic that ships.
        reference: Name of the runner whose outputs are right by definition.
        baseline: Name of the first runner that gives healthy errors.
        candidates: Names of the runners judged.
        tolerance: The bounds.
        cases: What was run, in order.
        not_run: Cases that time did not suffice for; they count for nothing.
        notes: How the proof was run, where that is not as usual.
        files: SHA-256 of the files that were judged, by name.
        verdicts: One for the file, one for each candidate and output, one for each candidate's
            laws.
        classes: The numbers, for each candidate, output and kind of case.
        healthy: The same for the baseline.
        worst: The cases nearest to their limit or farthest over it, worst first.
        steps: Step by step, for cases in which a model feeds on what it gave before.
        experts: For each candidate and layer of experts, where tokens go.
    """

    verdict: Literal["passed", "failed"]
    precision: Precision
    reference: str
    baseline: str | None
    candidates: tuple[str, ...]
    tolerance: Tolerance
    cases: tuple[RunCase, ...]
    not_run: tuple[RunCase, ...]
    notes: tuple[str, ...]
    files: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    classes: tuple[ClassResult, ...]
    healthy: tuple[ClassResult, ...]
    worst: tuple[WorstCase, ...]
    steps: tuple[StepErrors, ...] = ()
    experts: tuple[ExpertRouting, ...] = ()
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        passed = verdict_of(self.verdicts, self.cases)
        if self.verdict != passed:
            raise ParityError(
                f"the parity report says {self.verdict!r}, but its checks say {passed!r}",
                hint="the report was edited; run the proof again",
            )

    @property
    def passed(self) -> bool:
        """Whether every output of every candidate passed."""
        return self.verdict == "passed"

    def with_files(self, verdict: Verdict, files: Mapping[str, str]) -> ParityReport:
        """The report with what its files say of themselves (G0), and their hashes."""
        return replace(self.with_verdict(verdict), files=dict(files))

    def with_note(self, note: str) -> ParityReport:
        """The report with one more note."""
        return replace(self, notes=(*self.notes, note))

    def with_verdict(self, verdict: Verdict) -> ParityReport:
        """The report with one more verdict, shown first."""
        verdicts = (verdict, *self.verdicts)
        said = verdict_of(verdicts, self.cases)
        return replace(self, verdicts=verdicts, verdict=said)

    def failures(self) -> tuple[tuple[Verdict, Check], ...]:
        """Every failed output with its most serious check, most serious first."""
        failed = [(verdict, verdict.failures[0]) for verdict in self.verdicts if verdict.failures]
        return tuple(sorted(failed, key=lambda pair: _seriousness(pair[1])))

    def raise_if_failed(self) -> None:
        """Raise unless the proof passed.

        Raises:
            ParityError: Naming the worst output, its case and its numbers.
        """
        if self.passed:
            return
        failures = self.failures()
        if not failures:
            raise ParityError("nothing was compared, so nothing is proven")
        verdict, check = failures[0]
        others = len(failures) - 1
        more = f" (and {others} more {'output' if others == 1 else 'outputs'})" if others else ""
        where = f", case {check.case!r}" if check.case else ""
        raise ParityError(
            f"{_subject(verdict)}{where}: {check.detail}{more}",
            hint=self._hint(verdict, check),
        )

    def _hint(self, verdict: Verdict, check: Check) -> str:
        alike = [v for v in self.verdicts if v.output == verdict.output and v.passed]
        healthy = [v.candidate for v in alike if check.gate in {c.gate for c in v.checks}]
        if healthy and check.level in {"G1", "G2", "G3"}:
            return (
                f"{healthy[0]!r} passes with the same file: what differs between the two runtimes"
                " changes the result"
            )
        return hint_of(check.gate, check.level)

    def to_json(self) -> str:
        """The report as JSON, the same text for the same findings."""
        return dump(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> ParityReport:
        """Read what ``to_json`` wrote.

        Raises:
            ParityError: If the text is not such a report, or its verdict is not what its checks
                say.
        """
        return load(cls, text)


def verdict_of(
    verdicts: Sequence[Verdict], cases: Sequence[RunCase]
) -> Literal["passed", "failed"]:
    """``passed`` if an output was compared in some case and nothing failed."""
    compared = any(verdict.output for verdict in verdicts) and len(cases) > 0
    passed = compared and all(verdict.passed for verdict in verdicts)
    return "passed" if passed else "failed"


def _subject(verdict: Verdict) -> str:
    if verdict.output:
        return f"output {verdict.output!r} of {verdict.candidate}"
    return verdict.candidate
