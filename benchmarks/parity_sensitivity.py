"""Which planted faults the proof finds, what it says of healthy graphs, and what peers say."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from benchmarks.families import FAMILIES, Size
from benchmarks.peers import PEERS
from benchmarks.planting import (
    Outcome,
    check_healthy,
    count_places,
    export_family,
    plant_faults,
    start,
)
from benchmarks.rows import Row

__all__ = ["CLASSES", "run", "summary"]

# Faults by how much they change an output, in units of the healthy error.
CLASSES = (("< 1 x", 0.0, 1.0), ("1-10 x", 1.0, 10.0), ("10-100 x", 10.0, 100.0))
LARGEST = ("> 100 x", 100.0, float("inf"))
DETAILS = Path(__file__).parent.parent / "build" / "parity_sensitivity.json"
_SEED = 20
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        places: Places of every kind of fault in every family.
        located: Of these, how many are also localised.
        seeds: Healthy graphs, over all families.
        sizes: Sizes of the healthy models of each family.
        piece: Faults in one task.
    """

    places: int
    located: int
    seeds: int
    sizes: int
    piece: int


QUICK = Effort(places=1, located=0, seeds=42, sizes=1, piece=40)
FULL = Effort(places=10, located=1, seeds=504, sizes=3, piece=60)


def run(*, quick: bool) -> list[Row]:
    """Plant every kind of fault in one graph of every family, and prove each.

    Each family is exported once; a fault changes the exported graph. The quick run has one place
    for every kind, and does not localise. What was found of every fault is written to
    ``build/parity_sensitivity.json``.
    """
    effort = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as name:
        outcomes = _measure(effort, Path(name))
    DETAILS.parent.mkdir(exist_ok=True)
    DETAILS.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    for line in missed(outcomes):
        print(line, file=sys.stderr)
    return summary(outcomes)


def _measure(effort: Effort, root: Path) -> list[Outcome]:
    workers = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool:
        models = [
            (name, root / f"{name} {index}".replace(" ", "_"), size)
            for name in FAMILIES
            for index, size in enumerate(_sizes(name, effort.sizes))
        ]
        for _, folder, _ in models:
            folder.mkdir()
        _gather("export", [pool.submit(export_family, n, f, _SEED, s) for n, f, s in models])
        tasks = [*_fault_tasks(pool, models, effort), *_healthy_tasks(pool, models, effort)]
        return [outcome for found in _gather("prove", tasks) for outcome in found]


def _sizes(name: str, count: int) -> list[Size]:
    """The family's own size first, then shallower ones of other widths."""
    layers = FAMILIES[name].layers
    if "ensemble" in name:
        return [Size(layers)]
    return [Size(layers), Size(1, 16), Size(2, 32)][:count]


def _fault_tasks(
    pool: ProcessPoolExecutor, models: Sequence[tuple[str, Path, Size]], effort: Effort
) -> Iterable[Future[list[Outcome]]]:
    for name, folder, size in models:
        if size != Size(FAMILIES[name].layers):
            continue
        chosen = count_places(folder, effort.places, _SEED)
        kinds: dict[str, list[tuple[str, int]]] = {}
        for fault in chosen:
            kinds.setdefault(fault[0], []).append(fault)
        located = {fault for found in kinds.values() for fault in found[: effort.located]}
        for at in range(0, len(chosen), effort.piece):
            yield pool.submit(plant_faults, name, folder, chosen[at : at + effort.piece], located)


def _healthy_tasks(
    pool: ProcessPoolExecutor, models: Sequence[tuple[str, Path, Size]], effort: Effort
) -> Iterable[Future[list[Outcome]]]:
    each = effort.seeds // len(FAMILIES)
    for name in FAMILIES:
        own = [(folder, size) for family, folder, size in models if family == name]
        for index, (folder, size) in enumerate(own):
            seeds = range(1000 + index, 1000 + each, len(own))
            yield pool.submit(check_healthy, name, folder, seeds, size)


def _gather(what: str, tasks: Iterable[Future[_Result]]) -> list[_Result]:
    pending = list(tasks)
    found = []
    for done, task in enumerate(pending):
        found.append(task.result())
        print(f"{what}: {done + 1} of {len(pending)}", file=sys.stderr)
    return found


def summary(outcomes: Sequence[Outcome]) -> list[Row]:
    """Detection by family and class, over all, false alarms, localisation; peers beside."""
    faults = [one for one in outcomes if one.kind != "healthy"]
    healthy = [one for one in outcomes if one.kind == "healthy"]
    rows = []
    for family in dict.fromkeys(one.family for one in faults):
        for title, low, high in (*CLASSES, LARGEST):
            found = [o for o in faults if o.family == family and low <= _clamped(o) < high]
            rows += _detection(f"{family}: {len(found)} faults {title}", found)
    large = [one for one in faults if one.change > CLASSES[2][1]]
    largest = [one for one in faults if one.change > LARGEST[1]]
    rows += _detection(f"all: {len(large)} faults over 10 x", large, floor=99)
    rows += _detection(f"all: {len(largest)} faults over 100 x", largest, floor=100)
    half = [one for one in faults if "float16" in one.family and "scaled by 3" in one.kind]
    rows += _detection(f"float16: {len(half)} matrices scaled by 3 %", half, floor=100)
    rows += _alarms(healthy)
    located = [one for one in faults if one.localised is not None]
    right = partial(_share, located, lambda one: bool(one.localised))
    if located:
        rows.append(Row(f"{len(located)} detected faults, node named", right(), "%", floor=95))
    count = Counter(one.kind for one in faults)
    rows.append(Row("kinds of faults", len(count), "", floor=40))
    many = sum(places >= FULL.places for places in count.values())
    # The quick run has one place for every kind in every family.
    floor = 40 if max(count.values(), default=0) > len(FAMILIES) else None
    return [*rows, Row(f"kinds with {FULL.places} places and more", many, "", floor=floor)]


def missed(outcomes: Sequence[Outcome]) -> list[str]:
    """Every fault over 10 x that was not found, every false alarm, every wrong node, in words."""
    lines = []
    for one in outcomes:
        where = f"{one.family}: {one.kind} at {one.place}, {one.change:.3g} x"
        if one.kind == "healthy" and one.detected:
            lines.append(f"false alarm: {one.family}, {one.place}: {one.why}")
        elif one.kind != "healthy" and not one.detected and one.change > CLASSES[2][1]:
            lines.append(f"missed: {where}: {one.why}")
        elif one.localised is False:
            lines.append(f"elsewhere: {where}: named {one.named}")
    return lines


def _clamped(one: Outcome) -> float:
    """A graph that does not run has changed as much as can be."""
    return min(one.change, 1e300)


def _detection(metric: str, faults: Sequence[Outcome], floor: float | None = None) -> list[Row]:
    if not faults:
        return []
    beside = {peer: _share(faults, partial(_by_peer, peer)) for peer in PEERS}
    share = _share(faults, lambda one: one.detected)
    return [Row(f"{metric}, found", share, "%", floor=floor, beside=beside)]


def _by_peer(peer: str, one: Outcome) -> bool:
    return one.peers[peer]


def _alarms(healthy: Sequence[Outcome]) -> list[Row]:
    beside = {peer: float(sum(one.peers[peer] for one in healthy)) for peer in PEERS}
    alarms = float(sum(one.detected for one in healthy))
    metric = f"false alarms on {len(healthy)} healthy graphs"
    return [Row(metric, alarms, "", bound=0, beside=beside)] if healthy else []


def _share(outcomes: Sequence[Outcome], hit: Callable[[Outcome], bool]) -> float:
    return 100.0 * sum(map(hit, outcomes)) / len(outcomes)
