"""Runs models over the cases, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.compare import Deviation, by_step, compare
from toolkit.parity.options import OutputSpec, Precision
from toolkit.parity.store import OutputStore
from toolkit.parity.sweep import sweep
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Outputs, Runner
from toolkit.runtime.ensemble import picked, undecided

__all__ = ["Broken", "Measurements", "attempt", "measure", "record"]


@dataclass(frozen=True)
class Broken:
    """A case that gave no output to compare, and why."""

    reason: str


Measurements = Mapping[tuple[int, str], Deviation | Broken]
"""By index of the case and name of the output."""


def record(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    reference: Runner,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    store: OutputStore,
    progress: Progress = silent,
    seconds: float | None = None,
) -> int:
    """Keep the reference's outputs, for every case or until the time is over.

    Rows that it calls undecided are kept beside their output, and not compared.

    Returns:
        How many cases were run, at least one.

    Raises:
        ParityError: If the reference has no output of a name that is asked for.
    """
    started = perf_counter()
    # Member by member no case is finished before the last member, so not against the clock.
    spare = store.memory_bytes if seconds is None else None
    for index, found in enumerate(_answers(reference, cases, spare)):
        for output in outputs:
            if output.name not in found:
                raise ParityError(
                    f"the reference has no output {output.name!r}",
                    hint="it has " + ", ".join(sorted(found)),
                )
            for name, array in picked(found, output.name).items():
                store[index, name] = array
        progress(reference.name, index + 1, len(cases))
        if seconds is not None and perf_counter() - started > seconds:
            return index + 1
    return len(cases)


def _answers(
    reference: Runner, cases: Sequence[Case], memory_bytes: int | None
) -> Iterator[Outputs]:
    """Member by member where every case is one run; a case that goes on needs the whole model."""
    if memory_bytes is not None and all(case.drive is None for case in cases):
        feeds = [case.feeds for case in cases]
        for case, found in zip(cases, sweep(reference, feeds, memory_bytes), strict=True):
            yield case.finish(found)
        return
    with reference as run:
        for case in cases:
            yield case.run(run)


def measure(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    run: Runner,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    store: OutputStore,
    precision: Precision,
    progress: Progress = silent,
) -> Measurements:
    """Run every case on a runner that is entered, and compare each output with the reference's."""
    measured: dict[tuple[int, str], Deviation | Broken] = {}
    for index, case in enumerate(cases):
        found = attempt(run, case)
        for output in outputs:
            measured[index, output.name] = _compare(found, output, store, index, precision)
            _note_steps(measured[index, output.name], case, found, store, (index, output))
        progress(run.name, index + 1, len(cases))
    return measured


def _note_steps(
    deviation: Deviation | Broken,
    case: Case,
    found: Outputs | Broken,
    store: OutputStore,
    which: tuple[int, OutputSpec],
) -> None:
    """Note the distributions of each step, where a model feeds on what it gave before."""
    index, output = which
    if case.drive is None or isinstance(deviation, Broken) or isinstance(found, Broken):
        return
    if output.space != "values" and found[output.name].ndim > 2:
        wanted = store[index, output.name]
        deviation.steps = by_step(wanted, found[output.name], deviation.scale)


def attempt(run: Runner, case: Case) -> Outputs | Broken:
    """The outputs of one case, or why there are none."""
    try:
        return case.run(run)
    # A runtime may raise anything, and that it cannot run a promised shape is a finding of the
    # proof: it is recorded as a failure of this case and the others still run.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()
        return Broken(f"{type(error).__name__}: {reason[0] if reason else 'no message'}"[:300])


def _compare(
    found: Outputs | Broken,
    output: OutputSpec,
    store: OutputStore,
    index: int,
    precision: Precision,
) -> Deviation | Broken:
    if isinstance(found, Broken):
        return found
    if output.name not in found:
        return Broken(f"there is no output {output.name!r}, only " + ", ".join(sorted(found)))
    wanted, array = store[index, output.name], found[output.name]
    if array.shape != wanted.shape:
        return Broken(f"the shape is {list(array.shape)}, the reference's is {list(wanted.shape)}")
    mark = (index, undecided(output.name))
    if mark in store:
        # Either choice is right there, and they have nothing in common.
        wanted, array = (np.where(store[mark], one.dtype.type(0), one) for one in (wanted, array))
    return compare(wanted, array, output.space, precision)
