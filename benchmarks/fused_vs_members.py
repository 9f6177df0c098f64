"""One fused graph, against its members run one by one in ONNX Runtime."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime

from benchmarks.measure import interleaved, ratio, spread
from benchmarks.members import Member
from benchmarks.rows import Row
from graphs import Combination, Ensemble, Leaf, fuse
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.feeds import make_feeds
from toolkit.sources import FactorySource

__all__ = ["Workload", "in_a_process_of_its_own", "run", "time_runs"]

BOUND = 1.08


class Workload(Protocol):
    """What one timing runs."""

    @property
    def runs(self) -> int:
        """Runs in one timing."""

    def feeds(self) -> dict[str, np.ndarray]:
        """The inputs of every run."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: What the rows are called.
        members: The members, of any architectures that agree in ``logits``.
        spec: The input they share.
        batch: The rows of one run.
        runs: Runs in one timing, so that it lasts some milliseconds.
        repeats: Timings of each; more where a moment's load weighs more.
    """

    name: str
    members: tuple[Member, ...]
    spec: TensorSpec
    batch: int
    runs: int
    repeats: int

    def feeds(self) -> dict[str, np.ndarray]:
        """Seeded inputs."""
        return make_feeds([self.spec], {"batch": self.batch}, np.random.default_rng(0))


def run(*, quick: bool) -> list[Row]:
    """Measure small digit classifiers (batch 1 and 64) and transformer encoders of about 40 MB."""
    rows = []
    for case in cases(quick=quick):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(case, Path(folder), repeats=7 if quick else case.repeats)
    return rows


def cases(*, quick: bool) -> list[Case]:
    """Three members each."""
    image = TensorSpec.parse("image", "float32[batch, 1, 8, 8]", low=0, high=1)
    digits = tuple(
        Member(f"samples.recipes.digits_models:{name}") for name in ("cnn", "mlp", "attention")
    )
    vocabulary, width, depth = (1000, 128, 2) if quick else (8000, 384, 4)
    tokens = TensorSpec.parse("input_ids", "int64[batch, 64]", low=0, high=vocabulary)
    kwargs = {"vocabulary": vocabulary, "width": width, "depth": depth, "classes": 10}
    encoders = (Member("benchmarks.models:encoder", kwargs),) * 3
    return [
        Case("3 digit classifiers, batch 1", digits, image, batch=1, runs=200, repeats=61),
        Case("3 digit classifiers, batch 64", digits, image, batch=64, runs=20, repeats=61),
        Case("3 encoders, batch 4 x 64 tokens", encoders, tokens, batch=4, runs=1, repeats=21),
    ]


def measure(case: Case, folder: Path, repeats: int) -> list[Row]:
    """Export the members, fuse them, and time both."""
    paths = [_export(member, case.spec, folder, seed) for seed, member in enumerate(case.members)]
    leaves = tuple(Leaf(f"member_{path.stem}", path) for path in paths)
    weights = (1 / len(leaves),) * len(leaves)
    fused = folder / "fused.onnx"
    fuse(Ensemble("bench", leaves, Combination("linear", "logits", weights, "logits")), fused)
    sharing, default = (
        in_a_process_of_its_own(partial(time_runs, fused, paths, case, repeats, shared=shared))
        for shared in (True, False)
    )
    times = sharing["fused"]
    return [
        Row.of(
            f"{case.name}: fused / members, all sharing one thread pool",
            ratio(times, sharing["members"]),
            BOUND,
        ),
        Row.of(
            f"{case.name}: fused / members, default sessions",
            ratio(default["fused"], default["members"]),
        ),
        Row(f"{case.name}: fused", statistics.median(times) * 1e3, "ms", spread(times, 1e3)),
    ]


def time_runs(
    fused: Path, members: Sequence[Path], case: Workload, repeats: int, *, shared: bool
) -> dict[str, list[float]]:
    """Seconds of one run of the fused graph, and of all members one by one, taken in turns.

    Args:
        fused: The fused model.
        members: The members' models.
        case: What all are fed, and the runs in one timing.
        repeats: Timings of each.
        shared: Whether the sessions share one thread pool; otherwise each has its own. A process
            that has made the shared one can no longer make the other kind.
    """
    options = onnxruntime.SessionOptions()
    if shared:
        onnxruntime.set_global_thread_pool_sizes(len(os.sched_getaffinity(0)), 1)
        options.use_per_session_threads = False

    feeds = case.feeds()

    def runner(paths: Sequence[Path]) -> Callable[[], None]:
        calls = [partial(_session(path, options).run, ["logits"], feeds) for path in paths]

        def call() -> None:
            for _ in range(case.runs):
                for one in calls:
                    one()

        return call

    calls = {"fused": runner([fused]), "members": runner(members)}
    seconds = interleaved(calls, repeats, warmup=2)
    return {name: [value / case.runs for value in values] for name, values in seconds.items()}


def _export(member: Member, spec: TensorSpec, folder: Path, seed: int) -> Path:
    weights, path = folder / f"{seed}.safetensors", folder / f"{seed}.onnx"
    member.write(weights, seed)
    source = FactorySource(str(seed), member.factory, weights, (spec,), kwargs=member.kwargs)
    export_source(source, {"batch": DimRange(1, 16, 64)}, ExportOptions(), path)
    return path


def in_a_process_of_its_own(call: Callable[[], Any]) -> Any:
    """Threads and thread pools of one measurement must not be there in the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call).result()


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
