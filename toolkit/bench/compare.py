"""Two of anything that was or can be measured: which is faster, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from toolkit.bench.bench import Side, bench, compare_graphs
from toolkit.bench.intervals import apart, verdict
from toolkit.bench.options import BenchOptions
from toolkit.bench.points import points_of
from toolkit.bench.process import Measurer
from toolkit.bench.results import (
    BenchResult,
    PointRecord,
    RatioRecord,
    interval,
    new_result,
    read_result,
)
from toolkit.bench.subject import Subject, open_subject
from toolkit.errors import ToolkitError
from toolkit.progress import Progress, silent
from toolkit.runtime import RuntimeName, require_runtime

__all__ = ["compare"]

# Intervals know nothing of what changed between two measurements: one and the same graph was seen
# to differ by up to 9% from itself minutes later, on a busy machine.
_APART = 0.1


def compare(
    first: Path,
    second: Path,
    wanted: Sequence[Mapping[str, int]],
    options: BenchOptions,
    progress: Progress = silent,
) -> BenchResult:
    """The time of the first over that of the second, point by point.

    Two bundles or ONNX files take turns on the same inputs. Where one is a saved
    ``bench.json``, the other is measured at its points, or read, and the medians are set against
    each other.

    Raises:
        ToolkitError: If one cannot be measured or read, or they have no point in common.
    """
    saved = [path.suffix == ".json" for path in (first, second)]
    if not any(saved):
        one, other = _named(open_subject(first), first), _named(open_subject(second), second)
        for runtime in options.runtimes:
            require_runtime(cast("RuntimeName", runtime))
        points = points_of(one, wanted)
        with Measurer(options) as measurer:
            ratios = compare_graphs(one, Side(other.name, (other,)), points, measurer, progress)
        return new_result(one.name, options, ratios=ratios)
    asked = wanted
    if not wanted and not all(saved):
        there = read_result(first if saved[0] else second)
        asked = [dict(dims) for dims in dict.fromkeys(tuple(p.dims.items()) for p in there.points)]
    sides = [
        read_result(path)
        if is_saved
        else bench(open_subject(path), asked, options, progress=progress)
        for path, is_saved in zip((first, second), saved, strict=True)
    ]
    return _apart(sides[0], sides[1], options)


def _named(subject: Subject, path: Path) -> Subject:
    """By the path as it was given, because two files are often both called model."""
    shown = str(path)
    return Subject(
        shown, subject.path, subject.inputs, subject.outputs, subject.shapes, subject.bundle
    )


def _apart(first: BenchResult, second: BenchResult, options: BenchOptions) -> BenchResult:
    there = {_key(point): point for point in second.points}
    common = [(point, there[_key(point)]) for point in first.points if _key(point) in there]
    if not common:
        raise ToolkitError(
            f"{first.subject} and {second.subject} were measured at no point in common",
            hint="measure both with the same --runtime and --shape",
        )
    ratios = []
    for one, other in common:
        ratio = apart(np.asarray(one.samples_ms), np.asarray(other.samples_ms))
        ratios.append(
            RatioRecord(
                first=first.subject,
                second=second.subject,
                runtime=one.runtime,
                kind=one.kind,
                dims=one.dims,
                first_ms=one.latency_ms["p50"][0],
                second_ms=other.latency_ms["p50"][0],
                ratio=interval(ratio),
                verdict=verdict(ratio, max(options.margin, _APART)),
                rounds=0,
            )
        )
    least = max(options.margin, _APART)
    notes = [
        f"measured at different times, so less than {least:.0%} of difference counts as none",
    ]
    for what, mine, its in (
        ("machines", first.machine, second.machine),
        ("versions", first.versions, second.versions),
        ("threads", first.settings.get("threads"), second.settings.get("threads")),
    ):
        if mine != its:
            notes.append(f"{what} differ: {_shown(mine)} and {_shown(its)}")
    return new_result(first.subject, options, ratios=tuple(ratios), notes=tuple(notes))


def _key(point: PointRecord) -> tuple[object, ...]:
    return (point.runtime, point.kind, *sorted(point.dims.items()))


def _shown(value: object) -> str:
    return ", ".join(map(str, value.values())) if isinstance(value, Mapping) else str(value)
