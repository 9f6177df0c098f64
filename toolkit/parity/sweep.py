"""Runs a model over many inputs, ensembles and groups by member, a stack stage by stage.

A reference in float64 takes twice its weights; with one member in memory at a time an ensemble
takes no more than its largest member, and the members' outputs wait where the reference's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from toolkit.parity.store import OutputStore
from toolkit.runtime import EnsembleRunner, GroupRunner, Renamed, StackRunner
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
        memory_bytes: Of the outputs below it that each ensemble and each stack keeps in memory;
            the rest is on disk.
    """
    if isinstance(runner, Renamed):
        renamed = [lambda make=make: runner.own(make()) for make in feeds]
        for found in sweep(runner.inner, renamed, memory_bytes):
            yield runner.shared(found)
    elif isinstance(runner, EnsembleRunner):
        yield from _members(runner, feeds, memory_bytes)
    elif isinstance(runner, GroupRunner):
        yield from _side_by_side(runner, feeds, memory_bytes)
    elif isinstance(runner, StackRunner):
        yield from _stages(runner, feeds, memory_bytes)
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


def _side_by_side(
    group: GroupRunner, feeds: Sequence[Callable[[], Feeds]], memory_bytes: int
) -> Iterator[Outputs]:
    with OutputStore(memory_bytes) as store:
        names: list[str] = []
        for runner in group.members:
            own: list[str] = []
            for index, found in enumerate(sweep(runner, feeds, memory_bytes)):
                own = list(found)
                for name, array in found.items():
                    store[index, name] = array
            names += own
        for index in range(len(feeds)):
            yield group.gather([{name: store[index, name] for name in names}])


def _stages(
    stack: StackRunner, feeds: Sequence[Callable[[], Feeds]], memory_bytes: int
) -> Iterator[Outputs]:
    with OutputStore(memory_bytes) as store:
        names: list[set[str]] = [set() for _ in feeds]

        def passed(index: int) -> Outputs:
            return {name: store[index, name] for name in names[index]}

        given = [
            lambda index=index, make=make: {**make(), **passed(index)}
            for index, make in enumerate(feeds)
        ]
        *early, last = stack.stages
        for place, runner in enumerate(early):
            for index, found in enumerate(sweep(runner, given, memory_bytes)):
                for name, array in stack.passed(place, found).items():
                    store[index, name] = array
                    names[index].add(name)
        for index, found in enumerate(sweep(last, given, memory_bytes)):
            yield stack.result(found, passed(index))
