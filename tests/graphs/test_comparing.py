"""What differs between a graph and its twin, in words."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphs import Weights, differences, lift
from tests.graphs.models import net, write

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4] x) => (float[batch, 3] logits)
{
  hidden = MatMul (x, weight)
  kept = Softmax <axis = -1> (hidden)
  logits = Sub (kept, hidden)
}
"""


@pytest.fixture
def twins(tmp_path):
    """The wanted graph, and a function that writes a changed copy and compares."""
    wanted = net(tmp_path / "wanted.onnx", 0, TEXT)

    def changed(edit):
        model = onnx.load(wanted)
        edit(model.graph)
        onnx.save(model, tmp_path / "found.onnx")
        return [(d.subject, d.detail) for d in differences(tmp_path / "found.onnx", wanted)]

    return changed


def test_twins_do_not_differ(twins):
    assert twins(lambda graph: None) == []


def test_a_changed_weight_is_told_by_its_elements(twins):
    def edit(graph):
        array = numpy_helper.to_array(graph.initializer[0]).copy()
        array[2] = 0.5
        graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "weight"))

    ((subject, detail),) = twins(edit)
    assert subject == "weight"
    assert detail.startswith("weight differs in 3 of 12 elements (all with index 2 along axis 0)")
    assert "the first at [2, 0]: 0.5, wanted " in detail


def test_nan_in_both_is_no_difference(tmp_path):
    weight = np.full((4, 3), np.nan, np.float32)
    path = write(tmp_path / "nan.onnx", TEXT, weight=weight)
    assert differences(path, path) == ()


def test_operators_attributes_and_inputs_are_told(twins):
    def edit(graph):
        graph.node[0].op_type = "Gemm"
        graph.node[1].attribute[0].i = 0
        graph.node[2].input[:] = ["hidden", "kept"]

    details = [detail for _, detail in twins(edit)]
    assert details == [
        "the operator is Gemm, wanted MatMul",
        "axis is 0, wanted -1",
        "input 0 is hidden, wanted kept",
        "input 1 is kept, wanted hidden",
    ]


def test_new_and_missing_nodes_are_told(twins):
    def edit(graph):
        graph.node[1].CopyFrom(helper.make_node("Relu", ["hidden"], ["other"], name="new"))
        graph.node[2].input[0] = "other"

    found = dict(twins(edit))
    assert found["new"] == "Relu(hidden) is new"
    assert "Softmax(hidden) is missing" in found.values()
    assert "input 0 is other, wanted kept" in found.values()


def test_a_lifted_graph_computes_in_float64(tmp_path):
    from onnx.reference import ReferenceEvaluator

    text = TEXT.replace(
        "logits = Sub (kept, hidden)",
        "third = Constant <value_float = 0.25> ()\n"
        "  half = Cast <to = 10> (kept)\n  back = Cast <to = 1> (half)\n"
        "  logits = Sub (back, third)",
    )
    path = net(tmp_path / "m.onnx", 0, text)
    lift(path, tmp_path / "lifted.onnx")
    x = np.random.default_rng(1).normal(size=(2, 4))
    weight = Weights(path)["weight"].astype(np.float64)
    (found,) = ReferenceEvaluator(onnx.load(tmp_path / "lifted.onnx")).run(
        None, {"x": x, "weight": weight}
    )
    odds = np.exp(x @ weight)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, odds / odds.sum(-1, keepdims=True) - 0.25, rtol=1e-13)
