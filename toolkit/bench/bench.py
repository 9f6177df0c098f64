"""Measure a graph at its points, and against what it is made of or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import cast

import numpy as np

from toolkit.bench.clock import Rounds, Timed
from toolkit.bench.intervals import median_ratio, percentile, verdict
from toolkit.bench.options import BenchOptions
from toolkit.bench.points import Point, points_of
from toolkit.bench.process import Measurer
from toolkit.bench.results import BenchResult, PointRecord, RatioRecord, interval, new_result
from toolkit.bench.subject import Subject, job_of
from toolkit.progress import Progress, silent
from toolkit.runtime import RuntimeName, require_runtime

__all__ = ["Side", "bench", "compare_graphs", "thinned"]

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_SAMPLES = 1000


@dataclass(frozen=True)
class Side:
    """Graphs that run one after another, and what they are called together."""

    name: str
    graphs: tuple[Subject, ...]


def bench(
    subject: Subject,
    wanted: Sequence[Mapping[str, int]],
    options: BenchOptions,
    against: Side | None = None,
    progress: Progress = silent,
) -> BenchResult:
    """Latency, rate and memory at every point in every runtime.

    Args:
        subject: The graph.
        wanted: Sizes asked for; see ``points_of``.
        options: How to measure.
        against: What to hold it against at every point, taking turns: its members, for instance.
        progress: Told of every point.

    Raises:
        ToolkitError: If a point is not the graph's, a runtime is not here or refuses the graph.
    """
    points = points_of(subject, wanted)
    for runtime in options.runtimes:
        require_runtime(cast("RuntimeName", runtime))
    found = []
    ratios: tuple[RatioRecord, ...] = ()
    steps = [(runtime, point) for runtime in options.runtimes for point in points]
    with Measurer(options) as measurer:
        for done, (runtime, point) in enumerate(steps):
            progress(f"measure {subject.name}", done, len(steps))
            timed = measurer.time(job_of(subject, point.dims, options.seed), runtime)
            found.append(_record(runtime, point, timed))
        progress(f"measure {subject.name}", len(steps), len(steps))
        if against is not None:
            ratios = compare_graphs(subject, against, points, measurer, progress)
    notes = [
        f"{record.runtime}, {point.title}: the windows did not come to agree in"
        f" {options.seconds:g} s; all of them count"
        for record, (_, point) in zip(found, steps, strict=True)
        if not record.stable
    ]
    return new_result(subject.name, options, points=tuple(found), ratios=ratios, notes=tuple(notes))


def compare_graphs(
    first: Subject,
    second: Side,
    points: Sequence[Point],
    measurer: Measurer,
    progress: Progress = silent,
) -> tuple[RatioRecord, ...]:
    """The time of ``first`` over that of ``second``, taking turns, at every point.

    Inputs of the same name, type and shape are fed the same arrays.
    """
    found = []
    steps = [(runtime, point) for runtime in measurer.options.runtimes for point in points]
    what = f"compare {first.name} with {second.name}"
    options = measurer.options
    for done, (runtime, point) in enumerate(steps):
        progress(what, done, len(steps))
        own = job_of(first, point.dims, options.seed)
        others = [job_of(each, point.dims, options.seed, own.feeds) for each in second.graphs]
        rounds = measurer.turns([own], others, runtime)
        found.append(_ratio(first.name, second.name, runtime, point, rounds, options.margin))
    progress(what, len(steps), len(steps))
    return tuple(found)


def _ratio(  # noqa: PLR0913, PLR0917  (all of it is recorded)
    first: str, second: str, runtime: str, point: Point, rounds: Rounds, margin: float
) -> RatioRecord:
    ratio = median_ratio(rounds.first, rounds.second)
    return RatioRecord(
        first=first,
        second=second,
        runtime=runtime,
        kind=point.kind,
        dims=dict(point.dims),
        first_ms=1e3 * median(rounds.first),
        second_ms=1e3 * median(rounds.second),
        ratio=interval(ratio),
        verdict=verdict(ratio, margin),
        rounds=len(rounds.first),
    )


def _record(runtime: str, point: Point, timed: Timed) -> PointRecord:
    windows = timed.windows
    seconds = np.asarray(windows.seconds)
    rate = len(seconds) / windows.elapsed
    return PointRecord(
        runtime=runtime,
        kind=point.kind,
        dims=dict(point.dims),
        rows=point.rows,
        tokens=point.tokens,
        latency_ms={
            name: interval(percentile(seconds, share).scaled(1e3)) for name, share in SHARES.items()
        },
        mean_ms=1e3 * fmean(windows.seconds),
        runs=len(seconds),
        stable=windows.stable,
        windows_ms=tuple(1e3 * value for value in windows.medians),
        runs_per_second=rate,
        rows_per_second=rate * point.rows,
        tokens_per_second=rate * point.tokens if point.tokens else None,
        load_seconds=timed.load_seconds,
        memory_bytes={
            "loading": timed.memory.loading,
            "loaded": timed.memory.loaded,
            "running": timed.memory.running,
        },
        samples_ms=tuple(round(1e3 * value, 6) for value in thinned(windows.seconds, _SAMPLES)),
    )


def thinned(values: Sequence[float], most: int) -> list[float]:
    """At most so many of them, evenly spaced."""
    if len(values) <= most:
        return list(values)
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, most)]
