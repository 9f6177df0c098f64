"""Runs models over the cases, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.compare import Deviation, by_step, compare
from toolkit.parity.leaving_out import Kept, kept_of
from toolkit.parity.options import OutputSpec, Precision
from toolkit.parity.selections import by_row, routers_in, rows_of, run_watched, valid_tokens
from toolkit.parity.store import OutputStore
from toolkit.parity.sweep import sweep
from toolkit.parity.tallies import Tallies
from toolkit.progress import Progress, silent
from toolkit.runtime.base import Outputs, Runner
from toolkit.runtime.choices import choices_in
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
                if (index, name) not in store:
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
            told = choices_in(found)
            own = {name: array for name, array in found.items() if name not in told}
            yield {**case.finish(own), **by_row(told, rows_of(case.feeds()) if told else 1)}
        return
    with reference as run:
        for case in cases:
            yield run_watched(run, case)


def measure(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    run: Runner,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    store: OutputStore,
    precision: Precision,
    progress: Progress = silent,
    tallies: Tallies | None = None,
) -> Measurements:
    """Run every case on a runner that is entered, and compare each output with the reference's.

    What hangs on a near tie of a router is left out; ``tallies`` counts it.
    """
    measured: dict[tuple[int, str], Deviation | Broken] = {}
    for index, case in enumerate(cases):
        found = attempt(run, case)
        out = None if tallies is None else _left_out(tallies, found, case, store.case(index))
        for output in outputs:
            array = None if isinstance(found, Broken) else found.get(output.name)
            kept = None
            if tallies is not None and out is not None and array is not None:
                kept = kept_of(array, out, causal=tallies.causal)
            measured[index, output.name] = _compare(found, output, store, index, precision, kept)
            _note_steps(measured[index, output.name], case, found, store, (index, output), kept)
        progress(run.name, index + 1, len(cases))
    return measured


def _note_steps(  # noqa: PLR0913, PLR0917
    deviation: Deviation | Broken,
    case: Case,
    found: Outputs | Broken,
    store: OutputStore,
    which: tuple[int, OutputSpec],
    kept: Kept | None,
) -> None:
    """Note the distributions of each step, where a model feeds on what it gave before."""
    index, output = which
    if case.drive is None or isinstance(deviation, Broken) or isinstance(found, Broken):
        return
    if output.space != "values" and found[output.name].ndim > 2:
        wanted, given = store[index, output.name], found[output.name]
        given = given if kept is None else kept.filled(given, wanted)
        deviation.steps = by_step(wanted, given, deviation.scale)


def _left_out(
    tallies: Tallies, found: Outputs | Broken, case: Case, reference: Outputs
) -> npt.NDArray[np.bool_] | None:
    """The tokens [B, P] of a case that are not compared; None if all are."""
    if isinstance(found, Broken) or not choices_in(found):
        return None
    wanted, own = routers_in(reference), routers_in(found)
    valid = valid_tokens(case, next(iter((wanted or own).values())).ids.shape)
    return tallies.add(wanted, own, valid, case.name)


def attempt(run: Runner, case: Case) -> Outputs | Broken:
    """The outputs of one case with its choices of experts, or why there are none."""
    try:
        return run_watched(run, case)
    # A runtime may raise anything, and that it cannot run a promised shape is a finding of the
    # proof: it is recorded as a failure of this case and the others still run.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()
        return Broken(f"{type(error).__name__}: {reason[0] if reason else 'no message'}"[:300])


def _compare(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    found: Outputs | Broken,
    output: OutputSpec,
    store: OutputStore,
    index: int,
    precision: Precision,
    kept: Kept | None,
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
    if kept is None:
        return compare(wanted, array, output.space, precision)
    return kept.placed(compare(kept.of(wanted), kept.of(array), output.space, precision))
