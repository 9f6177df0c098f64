"""What it costs to ship: a graph's quality, size, latency and memory, as a table and a plot."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.measure import interleaved
from benchmarks.rows import Row
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

__all__ = ["Judge", "Task", "Trick", "draw", "export", "measure", "rows_of", "table", "tasks_of"]

Array = npt.NDArray[np.generic]
# A process of its own: what loading a graph and running it once adds to a bare ONNX Runtime.
_PEAK = """
import json, re, sys, numpy, onnxruntime
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
feeds = dict(numpy.load(sys.argv[2]))
before = peak()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, feeds)
print(json.dumps(peak() - before))
"""


@dataclass(frozen=True)
class Judge:
    """How graphs are judged.

    Attributes:
        metric: What quality is called, with its unit.
        quality: From a call of the graph to a number.
        feeds: What is timed.
        timed: What that is, in words.
    """

    metric: str
    quality: Callable[[Callable[[Mapping[str, Array]], Array]], float]
    feeds: Mapping[str, Array]
    timed: str


@dataclass(frozen=True)
class Trick:
    """One way to ship, as it was measured.

    Attributes:
        name: In words.
        quality: As the judge says.
        bytes: Of the graph and its data.
        milliseconds: Median of a run in ONNX Runtime, on one thread.
        memory: Bytes that loading and running it once adds to a process.
    """

    name: str
    quality: float
    bytes: int
    milliseconds: float
    memory: int


@dataclass(frozen=True)
class Task:
    """One task's tricks.

    Attributes:
        metric: What quality is called, with its unit.
        timed: What latency is of, in words.
        tricks: In the order of the table.
    """

    metric: str
    timed: str
    tricks: Sequence[Trick]


def export(folder: Path, name: str, text: str) -> Path:
    """The graph of a recipe; int8 is held to the default budget."""
    path = folder / f"{name}.yaml"
    path.write_text(text)
    outcome = export_recipe(load_recipe(path, allow_code=True), folder, folder / f"{name}_out")
    return outcome.folder / "model.onnx"


def measure(paths: Mapping[str, Path], judge: Judge, scratch: Path, repeats: int) -> Task:
    """All of them, timed in turns."""
    sessions = {name: _session(path) for name, path in paths.items()}
    calls = {
        name: partial(session.run, None, dict(judge.feeds)) for name, session in sessions.items()
    }
    seconds = interleaved(calls, repeats, warmup=5)
    np.savez(scratch / "feeds.npz", **judge.feeds)
    found = []
    for name, path in paths.items():
        files = (path, path.with_name(path.name + ".data"))
        size = sum(file.stat().st_size for file in files if file.exists())
        command = [sys.executable, "-c", _PEAK, str(path), str(scratch / "feeds.npz")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        session = sessions[name]
        quality = judge.quality(lambda feeds, s=session: s.run(None, dict(feeds))[0])
        time = float(np.median(seconds[name])) * 1e3
        found.append(Trick(name, quality, size, time, json.loads(done.stdout)))
    return Task(judge.metric, judge.timed, found)


def rows_of(task: Task, name: str) -> list[Row]:
    """A row of each; no bounds, because each buys something else."""
    return [
        Row(
            f"{name} ({task.timed}), {one.name}: {task.metric}",
            one.quality,
            "",
            beside={
                "kB": one.bytes / 1e3,
                "ms": one.milliseconds,
                "MB to run": one.memory / 1e6,
            },
        )
        for one in task.tricks
    ]


def tasks_of(rows: Sequence[Row]) -> dict[str, Task]:
    """What ``rows_of`` made rows of, by name."""
    found: dict[str, Task] = {}
    for row in rows:
        parts = re.fullmatch(r"(\w+) \((.+?)\), (.+): (.+)", row.metric)
        assert parts is not None
        name, timed, trick, metric = parts.groups()
        size, time, memory = row.beside["kB"], row.beside["ms"], row.beside["MB to run"]
        one = Trick(trick, row.value, round(size * 1e3), time, round(memory * 1e6))
        before = found[name].tricks if name in found else ()
        found[name] = Task(metric, timed, (*before, one))
    return found


def table(task: Task) -> str:
    """In Markdown."""
    lines = [f"| | {task.metric} | kB | ms, {task.timed} | MB to run |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {one.name} | {one.quality:.1f} | {one.bytes / 1e3:,.0f} | {one.milliseconds:.3g} | "
        f"{one.memory / 1e6:.1f} |"
        for one in task.tricks
    ]
    return "\n".join(lines)


def draw(tasks: Mapping[str, Task], path: Path) -> None:
    """Quality over latency, a plot for each task; the area of a point is its size in bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "trick", "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(8, 3.6 * len(tasks)), layout="constrained")
        plots = drawn.subplots(len(tasks), squeeze=False)[:, 0]
        for axes, (name, task) in zip(plots, tasks.items(), strict=True):
            largest = max(one.bytes for one in task.tricks)
            markers = cycle("osD^vPX*")  # several lie on top of each other
            for one in task.tricks:
                place = one.milliseconds, one.quality
                size = 20 + 280 * one.bytes / largest
                axes.scatter(*place, s=size, alpha=0.6, marker=next(markers), label=one.name)
            axes.set_title(name)
            axes.set_xlabel(f"milliseconds, {task.timed}, ONNX Runtime, one thread")
            axes.set_ylabel(task.metric)
            axes.margins(0.1)
            key = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
            for handle in key.legend_handles:
                handle.set_sizes([40])
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    bare = re.sub(r"\s*<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    path.write_text(bare, encoding="utf-8")


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
