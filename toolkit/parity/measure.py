"""Runs models over the cases, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.compare import Deviation, compare
from toolkit.parity.options import OutputSpec
from toolkit.parity.store import OutputStore
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Outputs, Runner

__all__ = ["Broken", "Measurements", "measure", "record"]


@dataclass(frozen=True)
class Broken:
    """A case that gave no output to compare, and why."""

    reason: str


Measurements = Mapping[tuple[int, str], Deviation | Broken]
"""By index of the case and name of the output."""


def record(
    reference: Runner,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    store: OutputStore,
    progress: Progress = silent,
) -> None:
    """Keep the reference's outputs for every case.

    Raises:
        ParityError: If the reference has no output of a name that is asked for.
    """
    with reference as run:
        for index, case in enumerate(cases):
            found = run(case.feeds())
            for output in outputs:
                if output.name not in found:
                    raise ParityError(
                        f"the reference has no output {output.name!r}",
                        hint="it has " + ", ".join(sorted(found)),
                    )
                store[index, output.name] = found[output.name]
            progress(reference.name, index + 1, len(cases))


def measure(
    runner: Runner,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    store: OutputStore,
    progress: Progress = silent,
) -> Measurements:
    """Run every case and compare each output with the reference's."""
    measured: dict[tuple[int, str], Deviation | Broken] = {}
    with runner as run:
        for index, case in enumerate(cases):
            found = _run(run, case)
            for output in outputs:
                measured[index, output.name] = _compare(found, output, store, index)
            progress(runner.name, index + 1, len(cases))
    return measured


def _run(run: Runner, case: Case) -> Outputs | Broken:
    try:
        return run(case.feeds())
    # A runtime may raise anything, and that it cannot run a promised shape is a finding of the
    # proof: it is recorded as a failure of this case and the others still run.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()
        return Broken(f"{type(error).__name__}: {reason[0] if reason else 'no message'}"[:300])


def _compare(
    found: Outputs | Broken, output: OutputSpec, store: OutputStore, index: int
) -> Deviation | Broken:
    if isinstance(found, Broken):
        return found
    if output.name not in found:
        return Broken(f"there is no output {output.name!r}, only " + ", ".join(sorted(found)))
    wanted, array = store[index, output.name], found[output.name]
    if array.shape != wanted.shape:
        return Broken(f"the shape is {list(array.shape)}, the reference's is {list(wanted.shape)}")
    return compare(wanted, array, output.space)
