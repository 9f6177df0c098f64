"""Timing: windows until they agree, and rounds in which two take turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from toolkit.bench.intervals import median_ratio
from toolkit.bench.options import BenchOptions

__all__ = [
    "Call",
    "Memory",
    "Rounds",
    "Timed",
    "Windows",
    "agreeing",
    "time_rounds",
    "time_windows",
]

Call = Callable[[], object]

_LEAST_RUNS = 5  # in a window, where the time allows
_LEAST_ROUNDS = 21
_CHECKED = 10  # rounds between looks at the interval, which cost something


@dataclass(frozen=True)
class Windows:
    """Latencies of runs one after another.

    Attributes:
        seconds: Of every run that counts: those of the windows that agreed, or of all.
        medians: Of every window, in seconds.
        elapsed: Wall time of the windows that count.
        stable: Whether the last windows agreed before the time was up.
    """

    seconds: tuple[float, ...]
    medians: tuple[float, ...]
    elapsed: float
    stable: bool


@dataclass(frozen=True)
class Rounds:
    """Seconds of one run of each side in every round: the median of its turn."""

    first: tuple[float, ...]
    second: tuple[float, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes of resident memory in the process that measured.

    Attributes:
        loading: The most while the graph was loaded, more than before.
        loaded: What stayed of that.
        running: The most while it ran, more than once it was loaded.
    """

    loading: int
    loaded: int
    running: int


@dataclass(frozen=True)
class Timed:
    """What one point gave; ``load_seconds`` is what opening the graph took."""

    windows: Windows
    memory: Memory
    load_seconds: float


def time_windows(call: Call, options: BenchOptions) -> Windows:
    """Run until the last windows agree or the time is up."""
    with _undisturbed():
        end = time.perf_counter() + options.seconds
        _warm_up(call, options)
        windows: list[list[float]] = []
        spans: list[float] = []
        medians: list[float] = []
        stable = False
        while not stable and (not windows or time.perf_counter() < end):
            runs, span = _window(call, options.window, end)
            windows.append(runs)
            spans.append(span)
            medians.append(statistics.median(runs))
            stable = agreeing(medians, options)
        kept = options.agree if stable else len(windows)
        seconds = [run for window in windows[-kept:] for run in window]
        return Windows(tuple(seconds), tuple(medians), sum(spans[-kept:]), stable)


def agreeing(medians: Sequence[float], options: BenchOptions) -> bool:
    """Whether the last windows differ by no more than the tolerance."""
    last = medians[-options.agree :]
    return len(last) == options.agree and max(last) <= min(last) * (1 + options.tolerance)


def time_rounds(first: Call, second: Call, options: BenchOptions) -> Rounds:
    """Both in turns until the interval of their ratio is narrow or the time is up.

    A slow moment of the machine hits both alike; every other round runs in the opposite order,
    because one may leave caches warm for the other. It stops by the interval's width, not by what
    it says: that would make chance findings likelier.
    """
    calls = (first, second)
    with _undisturbed():
        end = time.perf_counter() + options.seconds
        for call in calls:
            _warm_up(call, options)
        slowest = max(_turn(call, 1) for call in calls)
        count = max(1, math.ceil(options.turn / slowest))
        taken: tuple[list[float], list[float]] = ([], [])
        while len(taken[0]) < 3 or time.perf_counter() < end:
            order = (0, 1) if len(taken[0]) % 2 == 0 else (1, 0)
            for side in order:
                if count > 1:
                    calls[side]()  # its caches, after the other's turn
                taken[side].append(_turn(calls[side], count))
            rounds = len(taken[0])
            if rounds >= _LEAST_ROUNDS and rounds % _CHECKED == 1 and _narrow(taken, options):
                break
        return Rounds(tuple(taken[0]), tuple(taken[1]))


def _narrow(taken: tuple[list[float], list[float]], options: BenchOptions) -> bool:
    return median_ratio(*taken).precision <= options.margin / 4


def _window(call: Call, length: float, end: float) -> tuple[list[float], float]:
    clock, runs = time.perf_counter, list[float]()
    start = now = clock()
    while now - start < length or (len(runs) < _LEAST_RUNS and now < end):
        before = clock()
        call()
        now = clock()
        runs.append(now - before)
    return runs, now - start


def _warm_up(call: Call, options: BenchOptions) -> None:
    end = time.perf_counter() + min(options.warmup, options.seconds / 4)
    runs = 0
    while runs < 3 or time.perf_counter() < end:
        call()
        runs += 1


def _turn(call: Call, count: int) -> float:
    """The median, because one moment in which another program runs weighs more than a turn."""
    clock, runs = time.perf_counter, list[float]()
    for _ in range(count):
        start = clock()
        call()
        runs.append(clock() - start)
    return statistics.median(runs)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection of garbage in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
