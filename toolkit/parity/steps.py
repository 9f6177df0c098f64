"""Errors step by step, of cases in which a model feeds on what it gave before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.feeds import Case
from toolkit.parity.compare import Deviation
from toolkit.parity.measure import Broken, Measurements

__all__ = ["StepErrors", "step_errors"]


@dataclass(frozen=True)
class StepErrors:
    """Whether errors grow while a cache is carried on.

    Attributes:
        errors: Root mean square error of each step, relative to the output's scale in the case.
        baseline: The same of the first baseline; empty without one.
    """

    candidate: str
    output: str
    case: str
    errors: tuple[float, ...]
    baseline: tuple[float, ...]


def step_errors(
    candidate: str,
    output: str,
    cases: Sequence[Case],
    measured: Measurements,
    baselines: Sequence[Measurements],
) -> Iterator[StepErrors]:
    """One for each case that has steps in this output."""
    for index, case in enumerate(cases):
        mine = _steps(measured[index, output])
        if mine:
            healthy = _steps(baselines[0][index, output]) if baselines else ()
            yield StepErrors(candidate, output, case.name, mine, healthy)


def _steps(found: Deviation | Broken) -> tuple[float, ...]:
    return found.steps if isinstance(found, Deviation) else ()
