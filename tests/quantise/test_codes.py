"""Codes in a graph: what ONNX Runtime computes in them, and how TensorRT wants them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.quantise.models import drawn, rms_off
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, build_engine
from toolkit.errors import ExportError
from toolkit.quantise import QuantiseOptions, quantise

# Two towers read one input, as members of an ensemble do.
TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 2, 8, 8] x) => (float[batch, 5] y, float[batch, 5] z) {
    a = Conv <pads = [1, 1, 1, 1]> (x, first, first_bias)
    b = Relu (a)
    c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, second, second_bias)
    e = Relu (d)
    f = Flatten (e)
    y = Gemm (f, head, bias)
    g = Flatten (x)
    z = Gemm (g, other, bias)
}
"""
SIZES = {
    "first": (16, 2, 3, 3), "first_bias": (16,), "second": (8, 16, 3, 3), "second_bias": (8,),
    "head": (128, 5), "other": (128, 5), "bias": (5,),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("static") / "plain.onnx"
    return drawn(path, TEXT, SIZES, scale=lambda size: np.prod(size[1:]))


def images(count):
    random = np.random.default_rng(1)
    return [{"x": random.normal(size=(4, 2, 8, 8)).astype(np.float32)} for _ in range(count)]


def quantised(plain, tensorrt):
    out = plain.with_name(f"tensorrt_{tensorrt}.onnx")
    found = quantise(plain, out, QuantiseOptions("int8", tensorrt), images(16))
    assert found.nodes == 4
    return out


def run(path, **options):
    settings = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(settings, name, value)
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return session.run(None, images(1)[0])


@pytest.mark.parametrize("tensorrt", [False, True])
def test_answers_are_those_in_float32_but_for_codes(plain, tensorrt):
    for found, wanted in zip(run(quantised(plain, tensorrt)), run(plain), strict=True):
        assert 0 < rms_off(found, wanted) < 0.03


def test_onnx_runtime_computes_every_product_in_codes(plain, tmp_path):
    optimised = tmp_path / "optimised.onnx"
    run(quantised(plain, tensorrt=False), optimized_model_filepath=str(optimised))
    kinds = Counter(
        node.op_type for node in onnx.load(optimised, load_external_data=False).graph.node
    )
    assert not {"Conv", "Gemm", "MatMul", "Relu"} & set(kinds)
    assert kinds["QLinearConv"] == kinds["QGemm"] == 2
    # Between the convolutions, too: the pool stands among codes.
    assert kinds["DequantizeLinear"] <= 2


def test_tensorrt_finds_codes_in_front_of_products_alone(plain):
    graph = onnx.load(quantised(plain, tensorrt=True)).graph
    made = {name: node for node in graph.node for name in node.output}
    coded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(coded) == 4
    assert not any(
        made[node.input[0]].op_type in {"Conv", "Gemm"} for node in coded if node.input[0] in made
    )
    zeros = [i for i in graph.initializer if i.name.endswith("zero_point")]
    assert all(not numpy_helper.to_array(value).any() for value in zeros)


BRANCHED = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[batch, 128] x, bool many) => (float[batch, 5] y) {
    z = MatMul (x, other)
    y = If (many) <
        then_branch = inner () => (float[batch, 5] then) { then = MatMul (x, head) },
        else_branch = outer () => (float[batch, 5] kept) { kept = Identity (z) }
    >
}
"""


@pytest.mark.parametrize(("tensorrt", "count"), [(False, 2), (True, 1)])
def test_weights_alone_are_coded_in_branches_too_for_onnx_runtime(tmp_path, tensorrt, count):
    plain, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    drawn(plain, BRANCHED, {"head": (128, 5), "other": (128, 5)}, scale=lambda size: 1)
    assert quantise(plain, out, QuantiseOptions("int4_weights", tensorrt), ()).nodes == count
    rows = np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)
    for many in (False, True):
        found, wanted = (
            onnxruntime.InferenceSession(path).run(None, {"x": rows, "many": np.array(many)})[0]
            for path in (out, plain)
        )
        off = rms_off(found, wanted)
        assert (off == 0) == (tensorrt and many)
        assert off < 0.15
    kept = QuantiseOptions("int4_weights", tensorrt, keep=("then_*",))
    assert quantise(plain, out, kept, ()).nodes == 1


def test_a_quantiser_does_not_make_others_talk(plain, tmp_path):
    # In a process of its own, because it is the first import that does it.
    script = (
        "import logging, sys; from pathlib import Path; from toolkit.quantise import *; "
        "quantise(Path(sys.argv[1]), Path(sys.argv[2]), QuantiseOptions('int4_weights'), ()); "
        "logging.getLogger('somebody').info('talks')"
    )
    command = [sys.executable, "-c", script, str(plain), str(tmp_path / "coded.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "talks" not in done.stderr
    assert not done.stdout


@pytest.mark.rtx
def test_tensorrt_builds_it_biases_and_all(plain, tmp_path):
    shapes = {"batch": DimRange(1, 4, 8)}
    path = quantised(plain, tensorrt=True)
    engine = build_engine(path, shapes, EngineOptions(), tmp_path / "model.plan")
    assert [spec.name for spec in engine.outputs] == ["y", "z"]


@pytest.mark.rtx
def test_tensorrt_builds_weights_of_4_bits_from_opset_21_on(plain, tmp_path):
    options, out = QuantiseOptions("int4_weights", tensorrt=True), tmp_path / "coded.onnx"
    with pytest.raises(ExportError, match="has opset 20, wanted 21"):
        quantise(plain, out, options, ())
    assert not out.exists()
    model = onnx.load(plain)
    model.opset_import[0].version = 21
    newer = tmp_path / "newer.onnx"
    onnx.save(model, newer)
    assert quantise(newer, out, options, ()).nodes == 2  # the products; convolutions stay
    coded = [n for n in onnx.load(out).graph.node if n.op_type == "DequantizeLinear"]
    assert [[a.i for a in n.attribute if a.name == "block_size"] for n in coded] == [[32]] * 2
    for found, wanted in zip(run(out), run(plain), strict=True):
        assert 0 < rms_off(found, wanted) < 0.15
    shapes = {"batch": DimRange(1, 4, 8)}
    engine = build_engine(out, shapes, EngineOptions(), tmp_path / "model.plan")
    assert [spec.name for spec in engine.outputs] == ["y", "z"]
