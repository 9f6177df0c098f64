"""Every kind of fault changes the graph it is planted in, at the place it names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.faults import FAULTS, Model, choose, planted

RNG = np.random.default_rng(0)
WEIGHTS = {
    "table": RNG.standard_normal((8, 4)),
    "first.weight": RNG.standard_normal((4, 4)),
    "second.weight": RNG.standard_normal((4, 4)),
    "first.bias": RNG.standard_normal(4),
    "norm.weight": RNG.standard_normal(4),
    "norm.bias": RNG.standard_normal(4),
    "scale": np.array(0.5),
}
IDS = np.array([[1, 2, 3], [4, 5, 7]])


@pytest.fixture
def graph():
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["embedded"], "tokens"),
        node("MatMul", ["embedded", "first.weight"], ["product"], "first/MatMul"),
        node("Add", ["product", "first.bias"], ["linear"], "first/Add"),
        node("Relu", ["linear"], ["relu"], "relu"),
        node("MatMul", ["relu", "second.weight"], ["branch"], "second/MatMul"),
        node("Add", ["embedded", "branch"], ["stream"], "residual"),
        node(
            "LayerNormalization", ["stream", "norm.weight", "norm.bias"], ["normed"], "norm",
            epsilon=1e-5,
        ),
        node("Mul", ["normed", "scale"], ["scaled"], "scale"),
        node("Softmax", ["scaled"], ["logits"], "softmax", axis=-1),
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in WEIGHTS.items()]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 4])],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def run(model):
    return ReferenceEvaluator(model).run(None, {"input_ids": IDS})[0]


def faulty(graph, kind, tmp_path, number=0):
    site = planted(graph, kind, number, tmp_path / "faulty.onnx")
    return site, onnx.load(tmp_path / "faulty.onnx")


KINDS = [
    "weight row scaled by 0.03 %", "matrix scaled by 3 %", "two rows swapped",
    "one element changed", "square matrix transposed", "column zeroed", "weight zeroed",
    "row's sign flipped", "matrix rounded to float16", "matrix rounded to int8",
    "matrix of another layer", "bias dropped", "norm gain dropped",
    "one token's embedding changed", "NaN for one token", "table shifted by one row",
    "wrong softmax axis", "softmax twice", "wrong epsilon in a layer norm", "norm dropped",
    "float16 in one product", "activation dropped", "sign flipped", "scale wrong by 10 %",
    "residual dropped", "first row of the batch for all", "first position for all",
    "rows of the batch reversed",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_what_the_graph_computes(graph, kind, tmp_path):
    site, changed = faulty(graph, kind, tmp_path)
    assert site.nodes
    assert not np.array_equal(run(changed), run(graph))


@pytest.mark.parametrize("kind", KINDS)
def test_a_faulty_graph_is_still_valid(graph, kind, tmp_path):
    _, changed = faulty(graph, kind, tmp_path)
    onnx.checker.check_model(changed, full_check=True)


def test_the_healthy_graph_is_left_alone(graph, tmp_path):
    before = graph.SerializeToString()
    faulty(graph, "weight zeroed", tmp_path)
    assert graph.SerializeToString() == before


def test_a_row_scaled_changes_that_row_only(graph, tmp_path):
    site, changed = faulty(graph, "weight row scaled by 0.03 %", tmp_path)
    ratio = Model(changed).weights[site.place] / Model(graph).weights[site.place]
    assert np.allclose(ratio[2], 1.0003, rtol=1e-6)
    assert np.array_equal(np.delete(ratio, 2, axis=0), np.ones((3, 4)))


def test_a_residual_can_lose_either_side(graph, tmp_path):
    places = [faulty(graph, "residual dropped", tmp_path, n)[0].place for n in range(2)]
    assert places == ["residual without input 1", "residual without input 0"]


def test_a_mask_that_is_not_there_gives_no_place(graph):
    model = Model(graph)
    for kind in ("mask ignored", "stale cache slot", "two members swapped", "experts swapped"):
        assert list(FAULTS[kind](model)) == []


def test_places_are_drawn_by_the_seed_and_no_more_than_asked(graph):
    model = Model(graph)
    assert choose(model, 1, 3) == choose(model, 1, 3)
    kinds = [kind for kind, _ in choose(model, 1, 3)]
    assert len(kinds) == len(set(kinds))
    assert ("residual dropped", 1) in choose(model, 2, 3)


def test_a_stale_slot_moves_the_cache_by_one(tmp_path):
    nodes = [helper.make_node("Concat", ["past_key_values.0.key", "new"], ["present"], "c", axis=2)]
    shape = [1, 1, "past", 2]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "cache",
        [value("past_key_values.0.key", TensorProto.FLOAT, shape),
         value("new", TensorProto.FLOAT, [1, 1, 1, 2])],
        [value("present", TensorProto.FLOAT, None)],
    )  # fmt: skip
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])
    _, changed = faulty(graph, "stale cache slot", tmp_path)
    past = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    feeds = {"past_key_values.0.key": past, "new": np.full((1, 1, 1, 2), 9, np.float32)}
    found = ReferenceEvaluator(changed).run(None, feeds)[0]
    assert found[0, 0, :, 0].tolist() == [2, 4, 0, 9]


def test_there_are_more_kinds_than_the_issue_asks_for():
    assert len(FAULTS) >= 40
