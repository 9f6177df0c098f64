"""Routers are found by what they compute, however they are spelled, and only then."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphs
from graphs.contracts import DOMAIN, VERSION
from tests.graphs.moe_layers import Layer

LAYER = Layer(experts=6, top_k=2)
K, ROW, LAST = "k", "row", "last"


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, outputs[0], **attributes)


def normalised():
    """Mixtral's: softmax, the k largest, divided by their sum."""
    return [
        node("Softmax", ["logits"], ["scores"], axis=-1),
        node("TopK", ["scores", K], ["best", "ids"]),
        node("ReduceSum", ["best", LAST], ["sum"], keepdims=1),
        node("Div", ["best", "sum"], ["weights"]),
    ]


def softmax_after():
    """GPT-OSS's: the k largest logits, softmax over those."""
    return [
        node("TopK", ["logits", K], ["best", "ids"]),
        node("Softmax", ["best"], ["weights"], axis=-1),
    ]


def written_out():
    """Softmax by hand, not normalised, scaled by 2.5."""
    return [
        node("ReduceMax", ["logits", LAST], ["peak"], keepdims=1),
        node("Sub", ["logits", "peak"], ["below"]),
        node("Exp", ["below"], ["odds"]),
        node("ReduceSum", ["odds", LAST], ["mass"], keepdims=1),
        node("Div", ["odds", "mass"], ["scores"]),
        node("TopK", ["scores", K], ["best", "ids"], sorted=0),
        node("Mul", ["best", "scale"], ["weights"]),
    ]


def corrected():
    """DeepSeek-V3's without groups: a bias chooses, and does not weigh."""
    return [
        node("Sigmoid", ["logits"], ["scores"]),
        node("Add", ["scores", "bias"], ["biased"]),
        node("TopK", ["biased", K], ["best", "ids"]),
        node("GatherElements", ["scores", "ids"], ["chosen"], axis=-1),
        node("ReduceSum", ["chosen", LAST], ["sum"], keepdims=1),
        node("Div", ["chosen", "sum"], ["weights"]),
    ]


def tempered():
    """Softmax of half the logits chooses as ours does and weighs otherwise."""
    return [node("Mul", ["logits", "half"], ["cool"]), *_on(normalised(), "cool")]


def smallest():
    """The k smallest."""
    return [node("Neg", ["logits"], ["turned"]), *_on(normalised(), "turned")]


def _on(nodes, name):
    nodes[0].input[0] = name
    return nodes


def write(path, router):
    layer = LAYER
    random = np.random.default_rng(0)
    constants = {
        "gate": random.normal(size=(layer.hidden, layer.experts)).astype(np.float32),
        "bias": random.normal(size=layer.experts).astype(np.float32),
        "scale": np.array(2.5, np.float32), "half": np.array(0.5, np.float32),
        K: np.array([layer.top_k]), LAST: np.array([-1]), "minus_one": np.array([-1]),
        "one": np.array([1]),
    }  # fmt: skip
    info = helper.make_tensor_value_info
    choices = ["tokens", layer.top_k]
    graph = helper.make_graph(
        [node("MatMul", ["x", "gate"], ["logits"]), *router(),
         *layer.nodes("moe", "x", "ids", "weights", "y")],
        "routed",
        [info("x", TensorProto.FLOAT, ["tokens", layer.hidden])],
        [info("y", TensorProto.FLOAT, ["tokens", layer.hidden])],
        [*layer.initializers("moe"),
         *(numpy_helper.from_array(array, name) for name, array in constants.items())],
        value_info=[
            info("logits", TensorProto.FLOAT, ["tokens", layer.experts]),
            info("weights", TensorProto.FLOAT, choices),
            info("ids", TensorProto.INT64, choices),
            info("moe/up", TensorProto.FLOAT, ["slots", 2 * layer.inner]),
            info("moe/down", TensorProto.FLOAT, ["slots", layer.hidden]),
        ],
    )  # fmt: skip
    used = [n for n in graph.node if n.domain == DOMAIN]
    functions = {n.op_type: graphs.CONTRACTS[n.op_type].function(20) for n in used}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[ir.serde.serialize_function(f) for f in functions.values()],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


def found(tmp_path, router):
    """The report, and the calls of gating in the graph."""
    plain, out = write(tmp_path / "plain.onnx", router), tmp_path / "out.onnx"
    (report,) = graphs.rewrite(plain, [graphs.FindGating()], out)
    x = np.random.default_rng(1).normal(size=(50, LAYER.hidden)).astype(np.float32)
    before, after = (ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (plain, out))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
    nodes = onnx.load(out).graph.node
    gates = [n for n in nodes if n.op_type.endswith("Gating")]
    return report, [(n.op_type, {a.name: helper.get_attribute_value(a) for a in n.attribute})
                    for n in gates], [n.op_type for n in nodes]  # fmt: skip


@pytest.mark.parametrize(
    ("router", "normalize", "scale"),
    [(normalised, 1, 1.0), (softmax_after, 1, 1.0), (written_out, 0, 2.5)],
)
def test_softmax_routers_are_one_operator(tmp_path, router, normalize, scale):
    report, gates, kinds = found(tmp_path, router)
    sizes = {"num_experts": 6, "k": 2, "normalize": normalize, "scale": scale}
    assert gates == [("TopKGating", sizes)]
    assert report.sites == ("ids/gating",)
    assert not {"TopK", "Softmax", "Exp"} & set(kinds)


def test_a_correction_bias_is_found(tmp_path):
    _, gates, kinds = found(tmp_path, corrected)
    ((kind, said),) = gates
    assert kind == "GroupedTopKGating"
    assert (said["sigmoid"], said["normalize"], said["groups"]) == (1, 1, 1)
    assert "Sigmoid" in kinds  # the experts' own
    assert "TopK" not in kinds


@pytest.mark.parametrize("router", [tempered, smallest])
def test_a_router_that_computes_something_else_stays(tmp_path, router):
    report, gates, kinds = found(tmp_path, router)
    assert not gates
    assert "TopK" in kinds
    reason = "no way of gating that is known chooses the same experts and weights"
    assert [miss.reason for miss in report.near_misses] == [reason]
