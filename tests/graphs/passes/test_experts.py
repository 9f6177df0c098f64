"""Lowerings of experts: the numbers stay, idle experts do not run, weights are stored once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphs
from tests.graphs.moe_layers import Layer, write

LOWERINGS = {
    "conditionals": graphs.ExpertsToConditionals,
    "rows": graphs.ExpertsToRows,
    "dense": graphs.ExpertsToDense,
    "batched": graphs.ExpertsToBatched,
}
LAYERS = {
    "gated": Layer(),
    "biased": Layer(bias=True, seed=1),
    "transposed": Layer(bias=True, transposed=True, seed=2),
    "plain": Layer(experts=5, top_k=3, gated=False, seed=3),
    "single": Layer(experts=3, top_k=1, seed=4),
    "wider": Layer(out=20, seed=5),
    "all": Layer(experts=3, top_k=3, seed=6),
}


def run(path: Path, x: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "ids": ids, "weights": weights})[0]


def tokens(layer: Layer, count: int, seed: int = 0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, layer.hidden)).astype(np.float32)
    order = np.argsort(random.normal(size=(count, layer.experts)), axis=1)
    weights = random.random((count, layer.top_k)).astype(np.float32)
    return x, order[:, : layer.top_k].copy(), weights


def chosen(layer: Layer, logits: np.ndarray, normalize: int):
    """Ids and weights by the definition of TopKGating, in float64."""
    odds = np.exp(logits.astype(np.float64))
    ids = np.argsort(-logits, axis=1)[:, : layer.top_k]
    weights = np.take_along_axis(odds, ids, 1)
    return ids, weights / (weights if normalize else odds).sum(1, keepdims=True)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Every layer, as exported and lowered in every way."""
    folder = tmp_path_factory.mktemp("experts")
    files = {}
    for name, layer in LAYERS.items():
        plain = write(folder / f"{name}.onnx", layer)
        files[name, "exported"] = plain
        for way, step in LOWERINGS.items():
            files[name, way] = folder / f"{name}_{way}.onnx"
            (report,) = graphs.rewrite(plain, [step()], files[name, way])
            assert report.sites == ("moe/down",)
    return files


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("way", ["exported", *LOWERINGS])
def test_numbers_stay(lowered, name, way):
    layer = LAYERS[name]
    for count in (1, 2, 7, 40):
        x, ids, weights = tokens(layer, count, count)
        found = run(lowered[name, way], x, ids, weights)
        np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


@pytest.mark.parametrize("way", sorted(LOWERINGS))
def test_one_expert_takes_all_tokens(lowered, way):
    layer = LAYERS["single"]
    x, ids, weights = tokens(layer, 9)
    for expert in range(layer.experts):
        ids[:] = expert
        found = run(lowered["single", way], x, ids, weights)
        np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_routing_gives_the_same(lowered, data):
    name = data.draw(st.sampled_from(sorted(LAYERS)))
    layer = LAYERS[name]
    choice = st.permutations(range(layer.experts)).map(lambda order: order[: layer.top_k])
    ids = np.array(data.draw(st.lists(choice, min_size=1, max_size=12)))
    x, _, weights = tokens(layer, len(ids), data.draw(st.integers(0, 99)))
    found = {way: run(lowered[name, way], x, ids, weights) for way in LOWERINGS}
    for way, values in found.items():
        np.testing.assert_allclose(values, found["dense"], rtol=0, atol=2e-5, err_msg=way)


def test_an_expert_without_rows_does_not_run(lowered, tmp_path):
    layer = LAYERS["gated"]
    x, _, weights = tokens(layer, 3)
    ids = np.array([[2, 0], [0, 2], [2, 0]])
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(str(lowered["gated", "conditionals"]), options)
    session.run(None, {"x": x, "ids": ids, "weights": weights})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = {e["name"] for e in events if e["cat"] == "Node" and e["args"]["op_name"] == "Gemm"}
    assert {name.split("/")[2].split("_")[0] for name in ran} == {"0", "2"}


def test_weights_are_stored_once(lowered):
    sizes = {
        way: lowered["gated", way].with_suffix(".onnx.data").stat().st_size for way in LOWERINGS
    }
    whole = sum(tensor.nbytes for tensor in LAYERS["gated"].tensors.values())
    assert all(whole <= size <= whole + 4096 for size in sizes.values()), sizes


def test_conditionals_keep_the_rules_of_tensorrt(lowered):
    model = onnx.load(lowered["biased", "conditionals"], load_external_data=False)
    branches = [a.g for n in model.graph.node if n.op_type == "If" for a in n.attribute]
    assert len(branches) == 2 * LAYERS["biased"].experts
    inside = {node.op_type for branch in branches for node in branch.node}
    assert inside == {"Gemm", "Split", "Sigmoid", "Mul", "Identity"}
    assert not any(branch.initializer for branch in branches)
    names = [output.name for branch in branches for output in branch.output]
    assert len(set(names)) == len(names)


def test_rows_that_change_their_width_stay_without_a_conditional(tmp_path):
    plain = write(tmp_path / "wider.onnx", LAYERS["wider"])
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToConditionals()], tmp_path / "out.onnx")
    assert "go in 16 wide and come out 20 wide" in report.near_misses[0].reason
    kinds = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert not kinds & {"If", "ExpertLinear"}


def test_a_pattern_chooses_blocks(tmp_path):
    plain = write(tmp_path / "layer.onnx", LAYERS["gated"])
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToRows(("other/*",))], tmp_path / "out.onnx")
    assert not report.sites
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToRows(("moe/*",))], tmp_path / "out.onnx")
    assert report.sites == ("moe/down",)


def test_a_graph_without_experts_left_has_nothing_to_rewrite(tmp_path, lowered):
    with pytest.raises(graphs.GraphError, match="rewrote nothing"):
        graphs.rewrite(
            lowered["gated", "rows"],
            [graphs.ExpertsToRows()],
            tmp_path / "out.onnx",
            required=["experts_to_rows"],
        )


def test_layers_are_described_before_and_after(lowered):
    (before,) = graphs.expert_layers(lowered["biased", "exported"])
    (after,) = graphs.expert_layers(lowered["biased", "conditionals"])
    layer = LAYERS["biased"]
    assert (before.experts, before.top_k, before.hidden) == (4, 2, 16)
    assert before.parameters == sum(tensor.size for tensor in layer.tensors.values())
    assert before.active == before.parameters // 2
    assert (before.lowering, after.lowering) == ("none", "experts_to_conditionals")
    assert after == dataclasses.replace(before, lowering="experts_to_conditionals")


@pytest.mark.parametrize("name", ["gated", "transposed"])
def test_a_layer_can_be_cut_out(lowered, tmp_path, name):
    layer = LAYERS[name]
    graphs.cut_experts(lowered[name, "exported"], "moe/down", tmp_path / "cut.onnx")
    random = np.random.default_rng(5)
    x = random.normal(size=(6, layer.hidden)).astype(np.float32)
    logits = random.normal(size=(6, layer.experts)).astype(np.float32)
    ids, weights = chosen(layer, logits, normalize=1)
    for way, step in {"cut": None, **LOWERINGS, "native": graphs.ExpertsToNative}.items():
        file = tmp_path / f"{way}.onnx"
        if step is not None:
            (report,) = graphs.rewrite(tmp_path / "cut.onnx", [step()], file)
            assert not report.near_misses
        session = ort.InferenceSession(str(file))
        found = session.run(["y"], {"x": x, "logits": logits})[0]
        np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


def test_a_layer_of_slots_is_cut_out_as_it_is(tmp_path):
    """As the last of experts of attention, where something else stands between the two."""
    layer = LAYERS["gated"]
    plain = write(tmp_path / "apart.onnx", layer, external=False)
    model = onnx.load(plain)
    # What is read outside keeps the two layers apart.
    model.graph.output.append(next(v for v in model.graph.value_info if v.name == "moe/up"))
    inner = onnx.helper.make_tensor_value_info("moe/gated", 1, ["slots", layer.inner])
    model.graph.value_info.append(inner)
    onnx.save(model, plain)
    first, second = graphs.expert_layers(plain)
    assert (first.name, second.name) == ("moe/up", "moe/down")
    graphs.cut_experts(plain, "moe/down", tmp_path / "cut.onnx")
    graphs.rewrite(tmp_path / "cut.onnx", [graphs.ExpertsToRows()], tmp_path / "rows.onnx")
    ids = np.array([[0, 3], [2, 1]])
    x = np.random.default_rng(0).normal(size=(4, layer.inner)).astype(np.float32)
    wanted = np.stack([layer.tensors["down"][e] @ x[s] for s, e in enumerate(ids.ravel())])
    for name in ("cut.onnx", "rows.onnx"):
        session = ort.InferenceSession(str(tmp_path / name))
        found = session.run(["y"], {"x": x, "ids": ids})[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_weights_that_are_computed_are_left_alone(tmp_path):
    plain = write(tmp_path / "layer.onnx", LAYERS["gated"], external=False)
    model = onnx.load(plain)
    node = next(node for node in model.graph.node if node.op_type == "ExpertLinear")
    model.graph.node.insert(0, onnx.helper.make_node("Neg", [node.input[2]], ["negated"], "neg"))
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("negated", 1, LAYERS["gated"].tensors["up"].shape)
    )
    node.input[2] = "negated"
    onnx.save(model, plain)
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToRows()], tmp_path / "out.onnx")
    assert not report.sites
    assert report.near_misses[0].reason == "the weights of its experts are computed"


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("name", ["gated", "plain", "biased", "transposed"])
def test_native_takes_gating_experts_and_sum(tmp_path, name, normalize):
    layer = LAYERS[name]
    plain = write(tmp_path / "layer.onnx", layer, gating=normalize, external=False)
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToNative()], tmp_path / "native.onnx")
    assert not report.near_misses
    kinds = [node.op_type for node in onnx.load(tmp_path / "native.onnx").graph.node]
    assert "MoE" in kinds
    random = np.random.default_rng(3)
    x = random.normal(size=(9, layer.hidden)).astype(np.float32)
    logits = random.normal(size=(9, layer.experts)).astype(np.float32)
    ids, weights = chosen(layer, logits, normalize)
    session = ort.InferenceSession(str(tmp_path / "native.onnx"))
    (found,) = session.run(None, {"x": x, "logits": logits})
    np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


def test_native_without_gating_runs_on_rows(tmp_path):
    plain = write(tmp_path / "layer.onnx", LAYERS["gated"])
    (report,) = graphs.rewrite(plain, [graphs.ExpertsToNative()], tmp_path / "native.onnx")
    assert report.near_misses[0].reason == "its routing is not TopKGating: on its rows instead"
    kinds = {node.op_type for node in onnx.load(tmp_path / "native.onnx").graph.node}
    assert not kinds & {"MoE", "ExpertLinear"}


TENSORRT = graphs.ExpertsToNative(runtime="tensorrt")


@pytest.mark.parametrize("name", ["gated", "single", "all"])
def test_tensorrt_s_own_operator_has_a_body_that_runs_anywhere(tmp_path, name):
    layer = LAYERS[name]
    plain = write(tmp_path / "layer.onnx", layer)
    (report,) = graphs.rewrite(plain, [TENSORRT], tmp_path / "native.onnx")
    assert not report.near_misses
    model = onnx.load(tmp_path / "native.onnx", load_external_data=False)
    (node,) = (node for node in model.graph.node if node.op_type == "TRT_MoE")
    shapes = {each.name: list(each.dims) for each in model.graph.initializer}
    assert [shapes[each] for each in node.input[3:]] == [
        [layer.experts, layer.hidden, layer.inner],
        [layer.experts, layer.hidden, layer.inner],
        [layer.experts, layer.inner, layer.hidden],
    ]
    for count in (1, 7):
        x, ids, weights = tokens(layer, count, count)
        found = run(tmp_path / "native.onnx", x, ids, weights)
        np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


def test_an_expert_that_overflows_and_was_not_chosen_changes_nothing(tmp_path):
    layer = Layer()
    layer.tensors["up"][3] *= 1e30
    layer.tensors["down"][3] *= 1e30
    plain = write(tmp_path / "layer.onnx", layer)
    graphs.rewrite(plain, [TENSORRT], tmp_path / "native.onnx")
    x, _, weights = tokens(layer, 5)
    ids = np.array([[0, 1], [1, 2], [2, 0], [1, 0], [0, 2]])
    found = run(tmp_path / "native.onnx", x, ids, weights)
    np.testing.assert_allclose(found, layer.expected(x, ids, weights), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("biased", "its experts have biases: on its rows instead"),
        ("plain", "its activation is not a gated SiLU: on its rows instead"),
    ],
)
def test_what_tensorrt_s_operator_cannot_compute_runs_on_rows(tmp_path, name, reason):
    plain = write(tmp_path / "layer.onnx", LAYERS[name])
    (report,) = graphs.rewrite(plain, [TENSORRT], tmp_path / "native.onnx")
    assert [miss.reason for miss in report.near_misses] == [reason]
    kinds = {node.op_type for node in onnx.load(tmp_path / "native.onnx").graph.node}
    assert not kinds & {"TRT_MoE", "ExpertLinear"}
