"""Runs a graph and its twin over the samples and measures every value against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

import graphs
from toolkit.errors import ExportError, ParityError
from toolkit.parity.explain.budget import Error, measure, rounding, times_healthy
from toolkit.parity.explain.idle import idle_values
from toolkit.parity.explain.traces import GraphTrace, OrtTrace, Trace, chunked, value_sizes
from toolkit.progress import Progress
from toolkit.runtime import Array, Feeds, Outputs

__all__ = ["Reading", "Readings", "Sides", "read_values"]

# Values of fewer elements are computed by one thread: on a busy machine, waiting for a second one
# takes many times as long as the work.
_SMALL = 2**18


@dataclass(frozen=True)
class Reading:
    """One value in one sample: R, the healthy error, the error, and whether a bit changed."""

    ratio: float
    healthy: float
    error: Error
    changed: bool


@dataclass
class Readings:
    """What was measured.

    Attributes:
        samples: By sample, then by name of the value.
        chunks: Runs of each graph for each sample.
        reason: Why the graph does not run to its end, or nothing.
        coarser: How many times coarser a value's arithmetic is than in the fresh export.
    """

    samples: list[dict[str, Reading]] = field(default_factory=list)
    chunks: int = 0
    reason: str = ""
    coarser: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        shipped: The graph in question.
        twin: A fresh export of the same recipe, before passes that were asked for.
        truth: Every value in float64.
        pytorch: Values in the precision of the model, from PyTorch, if there are any.
        work: An empty folder.
    """

    shipped: Path
    twin: Path
    truth: GraphTrace
    pytorch: Trace | None
    work: Path


def read_values(
    sides: Sides,
    nodes: Sequence[graphs.NodeOutline],
    samples: Sequence[Callable[[], Feeds]],
    memory_bytes: int,
    progress: Progress,
) -> Readings:
    """Measure every value that both graphs have, but for those of members that need not run.

    Where the graph in question does not run, the values in front of the first that cannot be
    computed are measured, and that one is beyond every budget.

    Raises:
        ExportError: If ONNX Runtime refuses the fresh export.
        ParityError: If it cannot run it.
    """
    twins = frozenset(sides.truth.names) - idle_values(nodes)
    every = [name for node in nodes for name in node.outputs if name in twins]
    names, sizes, reason = _runnable(sides, every, samples)
    readings = Readings([{} for _ in samples], reason=reason)
    if reason:
        for reading in readings.samples:
            reading[every[len(names)]] = Reading(float("inf"), 0.0, Error(comparable=False), True)
    # float32 from both graphs, and float64 from PyTorch
    groups = list(chunked(names, sizes, memory_bytes // 16))
    readings.chunks, total = len(groups), len(groups) * len(samples)
    threads = 1 if max(sizes.values(), default=0) < _SMALL else 0
    for done, group in enumerate(groups):
        with ExitStack() as stack:
            stack.enter_context(_torch_threads(threads))
            found, twin = (
                stack.enter_context(OrtTrace(path, _folder(sides, name), group, threads=threads))
                for name, path in (("found", sides.shipped), ("twin", sides.twin))
            )
            for number, feeds in enumerate(samples):
                arrays = feeds()
                truth = sides.truth(arrays, group)
                pytorch = sides.pytorch(arrays, group) if sides.pytorch is not None else {}
                values = found(arrays), twin(arrays), truth, pytorch
                readings.samples[number].update(_read(nodes, values, readings.coarser))
                progress("compare values", done * len(samples) + number + 1, total)
    return readings


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads; 0 leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _runnable(
    sides: Sides, names: Sequence[str], samples: Sequence[Callable[[], Feeds]]
) -> tuple[Sequence[str], Mapping[str, int], str]:
    """As many values as can be computed, their sizes, and why there are no more."""
    try:
        return names, value_sizes(sides.shipped, sides.work, names, samples), ""
    except (ExportError, ParityError) as error:
        reason = error.message
    works, fails = 0, len(names)
    sizes: Mapping[str, int] = {}
    while fails - works > 1:
        middle = (works + fails) // 2
        try:
            sizes = value_sizes(sides.shipped, sides.work, names[:middle], samples)
            works = middle
        except (ExportError, ParityError) as error:
            fails, reason = middle, error.message
    return names[:works], sizes, reason


def _folder(sides: Sides, name: str) -> Path:
    folder = sides.work / name
    folder.mkdir(exist_ok=True)
    return folder


def _read(
    nodes: Sequence[graphs.NodeOutline],
    values: tuple[Outputs, Outputs, Outputs, Outputs],
    coarser: dict[str, float],
) -> Mapping[str, Reading]:
    """In graph order, so that coarse arithmetic is known to what follows it."""
    found, twins, truth, pytorch = values
    readings: dict[str, Reading] = {}
    for node in nodes:
        before = max((coarser.get(name, 1.0) for name in node.inputs), default=1.0)
        for name in node.outputs:
            coarser[name] = max(before, coarser.get(name, 1.0))
            if name not in found or name not in truth:
                continue
            array, twin, reference = found[name], twins[name], truth[name]
            eps, usual = rounding(array.dtype), rounding(twin.dtype)
            if eps and usual:
                coarser[name] = max(before, eps / usual)
            changed = array.dtype != twin.dtype or not _same_bits(array, twin)
            error, own = measure(reference, array), pytorch.get(name)
            ratio, healthy = times_healthy(
                error,
                measure(reference, twin) if changed else error,
                None if own is None else measure(reference, own),
                coarser[name],
                eps,
            )
            readings[name] = Reading(ratio, healthy, error, changed)
    return readings


def _same_bits(found: Array, twin: Array) -> bool:
    return found.shape == twin.shape and found.tobytes() == twin.tobytes()
