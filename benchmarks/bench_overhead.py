"""What toolkit bench adds to a run: its latency against that of a bare loop."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import ratio
from benchmarks.rows import Row
from toolkit.bench import BenchOptions, Measurer, open_subject
from toolkit.bench.subject import job_of

__all__ = ["run"]

BOUND = 1.02
BATCH = 8

# Nothing but the session, the clock and the run; a process of its own, as a measured point is.
_LOOP = """
import sys, time
import numpy, onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {"x": numpy.load(sys.argv[2])}
end = time.perf_counter() + float(sys.argv[3])
taken = []
while time.perf_counter() < end:
    start = time.perf_counter()
    session.run(["y"], feeds)
    taken.append(time.perf_counter() - start)
print(numpy.median(taken[len(taken) // 3:]))
"""


def run(*, quick: bool) -> list[Row]:
    """One product of matrices, some hundredths of a millisecond, and thirty larger ones."""
    rounds, seconds = (3, 0.5) if quick else (15, 1.5)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, count, width in (("1 product", 1, 16), ("30 products", 30, 128)):
            path = _products(folder / f"{count}.onnx", count, width)
            ours, bare = _measure(path, folder / "x.npy", rounds, seconds)
            found = ratio(ours, bare)
            low, high = 1e6 * min(bare), 1e6 * max(bare)
            rows.append(Row.of(f"{title}: toolkit bench / a bare loop, p50", found, BOUND))
            middle = 1e6 * float(np.median(bare))
            rows.append(Row(f"{title}: a bare loop", middle, "µs", (low, high)))
    return rows


def _measure(
    path: Path, inputs: Path, rounds: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Both in turns, every one in a process of its own; medians in seconds."""
    job = job_of(open_subject(path), {"batch": BATCH}, 0)
    np.save(inputs, job.feeds["x"])
    options = BenchOptions(threads=1, warmup=seconds / 3, window=seconds / 6, seconds=seconds)
    ours, bare = [], []
    with Measurer(options) as measurer:
        for _ in range(rounds):
            ours.append(float(np.median(measurer.time(job, "cpu").windows.seconds)))
            command = [sys.executable, "-c", _LOOP, str(path), str(inputs), str(seconds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            bare.append(float(done.stdout))
    return ours, bare


def _products(path: Path, count: int, width: int) -> Path:
    draw = np.random.default_rng(0)
    names = ["x", *(f"h{number}" for number in range(1, count)), "y"]
    weights = [
        numpy_helper.from_array(draw.normal(size=(width, width)).astype("float32") / width, f"w{i}")
        for i in range(count)
    ]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path
