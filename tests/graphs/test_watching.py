"""Routers' choices as outputs beside the graph's own, of exported and of lowered graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import graphs
from graphs import store
from graphs.moe.experts import ready_blocks
from graphs.moe.gating import GatingCall, agreeing
from graphs.moe.routers import router_of
from tests.graphs.moe_layers import Layer, write
from toolkit.feeds.caches import caches_of

LOWERINGS = {
    "none": (),
    "conditionals": (graphs.ExpertsToConditionals(),),
    "rows": (graphs.ExpertsToRows(),),
    "dense": (graphs.ExpertsToDense(),),
    "batched": (graphs.ExpertsToBatched(),),
}


def run(path, folder, feeds):
    options = ort.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(folder))
    session = ort.InferenceSession(path.read_bytes(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def feeds_of(model):
    caches = caches_of(model.inputs, [spec.name for spec in model.outputs])
    ids = np.random.default_rng(0).integers(3, 97, (2, 5))
    return caches.feeds(ids, caches.empty(2), {})


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v2"])
def test_choices_are_the_same_in_every_lowering_and_the_outputs_stay(moe_graph, tmp_path, name):
    model = moe_graph(name)
    feeds, plain = feeds_of(model), tmp_path / "plain.onnx"
    routers, hidden = graphs.watch_routers(model.path, plain)
    wanted = run(plain, model.path.parent, feeds)
    assert hidden == ()
    assert len(routers) == {"mixtral": 2, "deepseek_v2": 1}[name]
    # In groups no lowering does otherwise than without.
    for way in LOWERINGS if name == "mixtral" else ["rows"]:
        steps = LOWERINGS[way]
        lowered = tmp_path / way / "model.onnx"
        lowered.parent.mkdir()
        graphs.rewrite(model.path, [graphs.FindGating(), *steps], lowered)
        before = lowered.read_bytes()
        copy = tmp_path / f"{way}.onnx"
        again, _ = graphs.watch_routers(lowered, copy)
        assert lowered.read_bytes() == before
        # Weights are not copied.
        assert not copy.with_name(copy.name + ".data").exists()
        found, own = run(copy, lowered.parent, feeds), run(lowered, lowered.parent, feeds)
        assert list(found)[: len(own)] == list(own)
        assert all(found[key].tobytes() == value.tobytes() for key, value in own.items())
        for one, other in zip(routers, again, strict=True):
            assert one.experts == other.experts
            chosen = found[other.ids]
            assert np.array_equal(np.sort(wanted[one.ids]), np.sort(chosen))
            best = np.argsort(-found[other.scores], axis=1)[:, : chosen.shape[1]]
            assert np.array_equal(np.sort(best), np.sort(chosen))


def test_ids_that_no_node_makes_are_named_and_a_graph_without_experts_is_left(tmp_path):
    path = write(tmp_path / "moe.onnx", Layer())
    assert graphs.watch_routers(path, tmp_path / "copy.onnx") == ((), ("moe/down",))
    value = helper.make_tensor_value_info("x", 1, [2])
    node = helper.make_node("Identity", ["x"], ["y"])
    result = helper.make_tensor_value_info("y", 1, [2])
    model = helper.make_model(helper.make_graph([node], "g", [value], [result]), ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    assert graphs.watch_routers(tmp_path / "other.onnx", tmp_path / "copy.onnx") == ((), ())
    assert not (tmp_path / "copy.onnx").exists()


def test_what_one_model_of_an_ensemble_calls_is_not_tried_on_other_sizes(moe_graph):
    model = store.load(moe_graph("deepseek_v2").path)
    (block,), _ = ready_blocks(model.graph)
    router = router_of(block, {node: place for place, node in enumerate(model.graph)})
    other = GatingCall("TopKGating", (("num_experts", 4), ("k", 2), ("normalize", 1)))
    assert dict(agreeing(router, block, other).sizes)["num_experts"] == 8
