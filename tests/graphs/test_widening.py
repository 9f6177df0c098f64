"""Half precision looked at in float32, and constants as half precision has them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphs

HALF = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def half_graph(path, precision):
    """x [n, 3] float32 -> half(x) @ w * 0.1 in half precision -> y float32."""
    dtype = HALF[precision]
    w = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    weight = numpy_helper.from_array(w.astype(helper.tensor_dtype_to_np_dtype(dtype)), "w")
    scale = numpy_helper.from_array(np.array(0.1, helper.tensor_dtype_to_np_dtype(dtype)), "scale")
    nodes = [
        helper.make_node("Cast", ["x"], ["x_half"], to=dtype),
        helper.make_node("MatMul", ["x_half", "w"], ["mixed"]),
        helper.make_node("Constant", [], ["factor"], value=scale),
        helper.make_node("Mul", ["mixed", "factor"], ["small"]),
        helper.make_node("Cast", ["small"], ["y"], to=TensorProto.FLOAT),
    ]
    interface = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d])
        for n, d in (("x", 3), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "half", interface[:1], interface[1:], [weight])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    shipped = helper.tensor_dtype_to_np_dtype(dtype)
    return w.astype(shipped).astype(np.float64), float(np.array(0.1, shipped))


def run(path, x):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[
        0
    ]


@pytest.mark.parametrize("precision", HALF)
def test_a_widened_graph_has_the_weights_that_ship_and_no_rounding(tmp_path, precision):
    weight, factor = half_graph(tmp_path / "half.onnx", precision)
    graphs.widen(tmp_path / "half.onnx", tmp_path / "wide.onnx")
    x = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    exact = x.astype(np.float64) @ weight * factor
    found = run(tmp_path / "wide.onnx", x)
    assert np.abs(found - exact).max() < 1e-6
    # The scale is rounded as it ships: it is 0.1 to half precision only.
    assert np.abs(found - x.astype(np.float64) @ weight * 0.1).max() > 1e-6
    kept = onnx.load(tmp_path / "wide.onnx").graph
    assert {t.data_type for t in kept.initializer} == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", HALF)
def test_constants_are_rounded_once_and_infinities_stay(tmp_path, precision):
    dtype = helper.tensor_dtype_to_np_dtype(HALF[precision])
    values = np.array([0.1, -1e5, 3.0e38, -np.inf, 1.0, 1e-30], np.float32)
    value = numpy_helper.from_array(values, "w")
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])
    nodes = [helper.make_node("Max", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "constants", [info], [out], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "whole.onnx")
    graphs.round_constants(tmp_path / "whole.onnx", tmp_path / "rounded.onnx", precision)
    (kept,) = onnx.load(tmp_path / "rounded.onnx").graph.initializer
    found = numpy_helper.to_array(kept)
    largest = {"float16": 65504.0, "bfloat16": 3.3895314e38}[precision]
    wanted = np.clip(values, -largest, largest).astype(dtype).astype(np.float32)
    wanted[3] = -np.inf
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted)
