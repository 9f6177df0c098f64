"""Runs a model over many inputs, an ensemble member by member.

A reference in float64 takes twice its weights; with one member in memory at a time an ensemble
takes no more than its largest member, and the members' outputs wait where the reference's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from toolkit.parity.store import OutputStore
from toolkit.runtime import EnsembleRunner, Renamed
from toolkit.runtime.base import Feeds, Outputs, Runner
from toolkit.runtime.ensemble import picked

__all__ = ["sweep"]


def sweep(
    runner: Runner, feeds: Sequence[Callable[[], Feeds]], memory_bytes: int
) -> Iterator[Outputs]:
    """The outputs for each of ``feeds``, in order; ``runner`` is loaded and freed on the way.

    Args:
        runner: Not entered.
        feeds: Called once for every model in the tree.
        memory_bytes: Of the members' outputs each ensemble keeps in memory; the rest is on disk.
    """
    if isinstance(runner, Renamed):
        renamed = [lambda make=make: runner.own(make()) for make in feeds]
        for found in sweep(runner.inner, renamed, memory_bytes):
            yield runner.shared(found)
    elif isinstance(runner, EnsembleRunner):
        yield from _members(runner, feeds, memory_bytes)
    else:
        with runner as run:
            for make in feeds:
                yield run(make())


def _members(
    ensemble: EnsembleRunner, feeds: Sequence[Callable[[], Feeds]], memory_bytes: int
) -> Iterator[Outputs]:
    with OutputStore(memory_bytes) as store:
        names: list[list[str]] = []
        for place, (runner, output) in enumerate(ensemble.parts):
            for index, found in enumerate(sweep(runner, feeds, memory_bytes)):
                kept = picked(found, output)
                for name, array in kept.items():
                    store[index, f"{place} {name}"] = array
                names[place:] = [list(kept)]
        for index in range(len(feeds)):
            yield ensemble.combine(
                [
                    {name: store[index, f"{place} {name}"] for name in kept}
                    for place, kept in enumerate(names)
                ]
            )
