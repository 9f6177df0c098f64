"""FP8 by NVIDIA's ModelOpt, from a folder of its own: its answers, and that TensorRT builds it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.quantise.models import drawn, rms_off
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, build_engine

MODELOPT = Path(__file__).parents[2] / "build" / "modelopt"
TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 64] x) => (float[batch, 5] y) {
    a = Gemm <transB = 1> (x, first, first_bias)
    b = Relu (a)
    c = MatMul (b, second)
    d = Add (c, second_bias)
    e = Relu (d)
    y = Gemm (e, head, bias)
}
"""
SIZES = {
    "first": (96, 64), "first_bias": (96,), "second": (96, 96), "second_bias": (96,),
    "head": (96, 5), "bias": (5,),
}  # fmt: skip
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from toolkit.quantise import QuantiseOptions, quantise
plain, out, rows = sys.argv[1:]
feeds = [{"x": part} for part in np.split(np.load(rows), 16)]
print(quantise(Path(plain), Path(out), QuantiseOptions("fp8", tensorrt=True), feeds).nodes)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A graph, the same in FP8, and rows for both."""
    if not (MODELOPT / "modelopt").is_dir():
        pytest.skip("ModelOpt is not in build/modelopt; make test puts it there")
    folder = tmp_path_factory.mktemp("fp8")
    plain, out, rows = folder / "plain.onnx", folder / "fp8.onnx", folder / "rows.npy"
    drawn(plain, TEXT, SIZES)
    np.save(rows, np.random.default_rng(1).normal(size=(256, 64)).astype(np.float32))
    # Not in this process: ModelOpt changes what it imports.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(plain), str(out), str(rows)],
        env={**os.environ, "PYTHONPATH": str(MODELOPT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # It says nothing else there; a head of 5 outputs is too small to gain.
    assert done.stdout.split() == ["2"]
    return plain, out, np.load(rows)


def run(path, rows):
    options = onnxruntime.SessionOptions()
    # Its optimisations drop a ReLU in front of E4M3.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]


def test_weights_and_activations_are_e4m3_and_answers_stay(made):
    plain, out, rows = made
    model = onnx.load(out)
    kinds = Counter(value.data_type for value in model.graph.initializer)
    assert kinds[onnx.TensorProto.FLOAT8E4M3FN] >= 2
    assert 1e-3 < rms_off(run(out, rows), run(plain, rows)) < 0.1


@pytest.mark.rtx
def test_tensorrt_builds_it(made, tmp_path):
    _, out, _ = made
    shapes = {"batch": DimRange(1, 4, 8)}
    engine = build_engine(out, shapes, EngineOptions(), tmp_path / "model.plan")
    assert [spec.name for spec in engine.outputs] == ["y"]
