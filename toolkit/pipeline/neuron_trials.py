"""What neurons say to real or seeded inputs, and from which silence on gathering rows is faster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

import graphs
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.progress import Progress
from toolkit.runtime import OrtRunner

__all__ = ["FEW", "Activity", "Trial", "activities", "break_evens", "try_layer"]

FEW = (1, 2, 4, 8)
"""Numbers of tokens at which rows may be gathered."""

_CASES, _MOST_ROWS = 32, 256
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)  # of active neurons, at which a kind of layer is timed
# A limit lies so far inside what was measured, because the next machine is not quite this one.
_MARGIN = 0.75
_RUNS, _SECONDS = 41, 0.25
_COLD = 64 << 20  # bytes of weights that no cache is expected to hold
# A ratio just above 1 is measured again: what one session costs the other hits either.
_TRIES, _CLOSE = 3, (1.02, 1.15)

_Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activity:
    """What one layer's activation was seen to be.

    Attributes:
        rows: Of tokens, [N, F].
        silent: Mean share of neurons that are zero for all of so many neighbouring tokens.
    """

    rows: _Rows
    silent: Mapping[int, float]


@dataclass(frozen=True)
class Trial:
    """What was measured of one layer.

    Attributes:
        limits: For the pass: largest shares of active neurons at 1, 2, .. tokens.
        break_even: Smallest share of silent neurons at which gathering was faster, by tokens.
        seconds: The whole product and the rewritten layer on activations that were seen, by
            tokens.
    """

    limits: tuple[float, ...]
    break_even: Mapping[int, float]
    seconds: Mapping[int, tuple[float, float]]


def activities(
    plan: Plan, graph: Path, layers: Sequence[graphs.SilentLayer], progress: Progress
) -> tuple[str, dict[str, Activity]]:
    """Run the recipe's real inputs, or seeded random ones, and look at what ReLUs give.

    Returns:
        Which inputs they were, and the activity by name of the activation.
    """
    every = [case for case in proof_cases(plan) if case.drive is None]
    real = [case for case in every if case.kind == "real"][:_CASES]
    used = real or [case for case in every if case.kind == "random"][:_CASES] or every[:_CASES]
    seen: dict[str, list[_Rows]] = {layer.activation: [] for layer in layers}
    with TemporaryDirectory() as folder:
        shown = Path(folder) / "shown.onnx"
        exposure = graphs.expose(graph, shown, list(seen))
        with OrtRunner(shown, weights=graph.parent) as run:
            for done, case in enumerate(used):
                progress("look at neurons", done, len(used))
                for name, array in zip(exposure.values, run(case.feeds()).values(), strict=True):
                    rows = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
                    seen[name].append(rows[:_MOST_ROWS].copy())
    progress("look at neurons", len(used), len(used))
    what = "the recipe's real inputs" if real else "seeded random inputs"
    said = {name: np.concatenate(parts) for name, parts in seen.items() if parts}
    return what, {name: Activity(rows, _silent(rows)) for name, rows in said.items() if len(rows)}


def _silent(rows: _Rows) -> dict[int, float]:
    """By number of tokens; what fewer rows than that cannot say is what all rows say."""
    found = {}
    for count in FEW:
        whole = len(rows) // count
        groups = rows[: whole * count].reshape(whole, count, -1) if whole else rows[None]
        found[count] = float((groups == 0).all(axis=1).mean())
    return found


def try_layer(  # noqa: PLR0913  (what is timed, and how)
    graph: Path,
    layer: graphs.SilentLayer,
    activity: Activity,
    *,
    counts: Sequence[int],
    break_even: Mapping[int, float] | None = None,
    alike: int = 1,
) -> Trial:
    """Time one layer cut out, whole and skipping.

    As many copies run in turn as the graph has layers of its kind, as far as it takes to find the
    weights in memory rather than in a cache: that is how they are found when the graph runs.

    Args:
        graph: The file that holds it.
        layer: Which.
        activity: What it says.
        counts: Numbers of tokens to hold the rewritten layer against the whole product at.
        break_even: As measured for a layer of the same sizes; measured if None.
        alike: Layers of the same sizes in the graph, this one included.
    """
    copies = min(alike, -(-_COLD // layer.bytes))
    with TemporaryDirectory() as name:
        folder = Path(name)
        cut = folder / "cut.onnx"
        graphs.cut_silent(graph, layer.name, cut)
        if break_even is None:
            break_even = break_evens(cut, layer.neurons, copies)
        limits = _limits(break_even)
        skipping = folder / "skipping.onnx"
        graphs.rewrite(cut, [graphs.SkipSilentNeurons(limits)], skipping)
        seconds = {}
        with _Copies(cut, copies) as whole, _Copies(skipping, copies) as less:
            for count in counts:
                seconds[count] = _settled(whole, less, _windows(activity.rows, count))
    return Trial(limits, break_even, seconds)


def break_evens(cut: Path, neurons: int, copies: int = 1) -> dict[int, float]:
    """The smallest share of silent neurons at which gathering rows is faster, by tokens.

    1 where it never was; of so many copies of a layer that run in turn.
    """
    random = np.random.default_rng(neurons)
    always = cut.with_name("always.onnx")
    graphs.rewrite(cut, [graphs.SkipSilentNeurons((1.0,) * max(FEW))], always)
    found = {}
    with _Copies(cut, copies) as whole, _Copies(always, copies) as less:
        for count in FEW:
            ratios = []
            for share in _SHARES:
                rows = np.abs(random.normal(size=(count, neurons))).astype(np.float32)
                rows[:, random.permutation(neurons)[int(share * neurons) :]] = 0
                full, part = _race(whole, less, [rows])
                ratios.append(part / full)
            found[count] = 1 - _crossing(_SHARES, ratios)
    return found


def _crossing(shares: Sequence[float], ratios: Sequence[float]) -> float:
    """The share at which a line through the ratios reaches 1; 0 if they start above it."""
    if ratios[0] >= 1:
        return 0.0
    for place in range(1, len(shares)):
        if ratios[place] >= 1:
            low, high = ratios[place - 1], ratios[place]
            step = (1 - low) / (high - low)
            return shares[place - 1] + step * (shares[place] - shares[place - 1])
    return shares[-1]


def _limits(break_even: Mapping[int, float]) -> tuple[float, ...]:
    """For every number of tokens up to the last: what holds at the next that was measured."""
    return tuple(
        round(_MARGIN * (1 - break_even[min(n for n in FEW if n >= count)]), 4)
        for count in range(1, max(FEW) + 1)
    )


def _windows(rows: _Rows, count: int) -> list[_Rows]:
    """Some runs of neighbouring rows; rows repeat where there are too few."""
    if len(rows) < count:
        rows = np.tile(rows, (-(-count // len(rows)), 1))
    starts = np.linspace(0, len(rows) - count, num=min(8, len(rows) - count + 1)).astype(int)
    # Not the sign but the pattern matters, and a layer that is cut out begins with a ReLU.
    return [np.ascontiguousarray(np.abs(rows[start : start + count])) for start in starts]


class _Copies(ExitStack):
    """Sessions of one graph, the next of which runs with every call."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__()
        runs = [self.enter_context(OrtRunner(path, spinning=False)) for _ in range(count)]
        self.count, self._turn = count, cycle(runs)

    def run(self, rows: _Rows) -> None:
        next(self._turn)({"x": rows})


def _settled(whole: _Copies, less: _Copies, inputs: Sequence[_Rows]) -> tuple[float, float]:
    """The fairest of a few races, where the first was close."""
    best = _race(whole, less, inputs)
    for _ in range(_TRIES - 1):
        if not _CLOSE[0] < best[1] / best[0] < _CLOSE[1]:
            break
        best = min(best, _race(whole, less, inputs), key=lambda pair: pair[1] / pair[0])
    return best


def _race(whole: _Copies, less: _Copies, inputs: Sequence[_Rows]) -> tuple[float, float]:
    """Median seconds of the first, and that times the median ratio of neighbouring runs.

    They run in turns, so that a slow moment of the machine hits both.
    """
    for place in range(max(2, whole.count)):
        whole.run(inputs[place % len(inputs)])
        less.run(inputs[place % len(inputs)])
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _SECONDS
    for turn in range(_RUNS):
        rows = inputs[turn % len(inputs)]
        pair = ((whole, times[0]), (less, times[1]))
        for copies, taken in pair if turn % 2 else pair[::-1]:
            start = time.perf_counter()
            copies.run(rows)
            taken.append(time.perf_counter() - start)
        if turn > 4 and time.perf_counter() > end:
            break
    ratios = np.divide(times[1], times[0])
    usual = float(np.median(times[0]))
    return usual, usual * float(np.median(ratios))
