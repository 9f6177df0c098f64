"""Which lowering the experts of a recipe get, and what the bundle says of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphs import expert_layers
from tests.graphs.models import net
from tests.moe_models import write_tiny
from tests.workshop import write_recipe
from toolkit.bundle import open_bundle
from toolkit.errors import RecipeError
from toolkit.pipeline import export_recipe
from toolkit.pipeline.experts import LOWERINGS, fastest_lowering, settle_experts
from toolkit.pipeline.graph import asked_passes, fuse_leaves
from toolkit.pipeline.plan import make_plan
from toolkit.progress import silent
from toolkit.recipe import load_recipe

RECIPE = """
model: {{checkpoint: {name}}}
shapes: {{batch: [1, 1, 2], sequence: [1, 4, 16]}}
parity: {{cases: 1, budget: 4s}}
export: {{experts: {experts}}}
"""


def recipe(folder, experts, name="mixtral", more=""):
    text = RECIPE.format(name=name, experts=experts) + more
    return load_recipe(write_recipe(folder, text))


@pytest.fixture
def exported(moe_graph):
    return moe_graph("mixtral").path


@pytest.fixture
def folder(tmp_path):
    write_tiny(tmp_path / "mixtral", "mixtral")
    return tmp_path


def plan_for(folder, experts, **changes):
    plan = make_plan(recipe(folder, experts), folder)
    return plan if not changes else _replaced(plan, changes)


def _replaced(plan, changes):
    return dataclasses.replace(plan, recipe=plan.recipe.model_copy(update=changes))


def test_a_bundle_says_what_was_measured_and_holds_no_marker(folder):
    outcome = export_recipe(recipe(folder, "auto"), folder, folder / "out")
    assert outcome.report.passed
    bundle = open_bundle(folder / "out")
    experts = bundle.manifest.experts
    assert experts.lowering in LOWERINGS
    assert set(experts.milliseconds) >= {"conditionals", "rows", "dense", "batched"}
    assert all(set(times) == {"1", "4", "32"} for times in experts.milliseconds.values())
    assert experts.reason.startswith("fastest in ONNX Runtime at 1, 4, 32 tokens: ")
    assert f"experts: {experts.lowering}" in (folder / "out" / "recipe.yaml").read_text()
    layers = expert_layers(folder / "out" / "model.onnx")
    assert [layer.lowering for layer in layers] == [f"experts_to_{experts.lowering}"] * 2
    kinds = {n.op_type for n in onnx.load(folder / "out" / "model.onnx").graph.node}
    assert "ExpertLinear" not in kinds


@pytest.mark.parametrize("experts", ["conditionals", "keep"])
def test_what_the_recipe_says_is_done(folder, experts):
    outcome = export_recipe(recipe(folder, experts), folder, folder / "out")
    assert outcome.report.passed
    assert outcome.manifest.experts.reason == "the recipe says so"
    (first, _) = expert_layers(folder / "out" / "model.onnx")
    assert first.lowering == ("none" if experts == "keep" else "experts_to_conditionals")
    assert first.routing == "TopKGating: normalize 1, scale 1"
    kinds = [n.op_type for n in onnx.load(folder / "out" / "model.onnx").graph.node]
    assert kinds.count("If") == (0 if experts == "keep" else 8)


def test_mixed_precision_reaches_the_experts(folder, exported, tmp_path):
    plan = plan_for(folder, "conditionals")
    export = plan.recipe.export.model_copy(update={"precision": "mixed_float16"})
    plan = _replaced(plan, {"export": export})
    out = tmp_path / "model.onnx"
    fuse_leaves(plan, {"mixtral": exported}, out, asked_passes(plan))
    model = onnx.load(out, load_external_data=False)
    weights = [i for i in model.graph.initializer if "experts.gate_up_proj" in i.name]
    assert len(weights) == 8
    assert {i.data_type for i in weights} == {onnx.TensorProto.FLOAT16}
    assert [n.op_type for n in model.graph.node].count("TopKGating") == 2


def test_tensorrt_goes_by_the_number_of_experts(folder, exported):
    plan, record = settle_experts(
        plan_for(folder, "auto", target="tensorrt-rtx"), [exported], silent
    )
    assert record.lowering == plan.recipe.export.experts == "conditionals"
    assert record.reason == "TensorRT, and at most 4 experts, wanted 32 for an If each"


def test_above_that_number_there_is_no_conditional(folder, exported, monkeypatch):
    monkeypatch.setattr("toolkit.pipeline.experts._MOST_CONDITIONALS", 3)
    plan, record = settle_experts(
        plan_for(folder, "auto", target="tensorrt-rtx"), [exported], silent
    )
    assert record.lowering == plan.recipe.export.experts == "rows"
    assert "4 experts: building takes too long" in record.reason


def test_a_layer_too_large_is_not_measured(folder, exported, monkeypatch):
    monkeypatch.setattr("toolkit.pipeline.experts._MOST_BYTES", 10)
    _, record = settle_experts(plan_for(folder, "auto"), [exported], silent)
    assert record.lowering == "conditionals"
    assert record.milliseconds is None


def test_an_operator_of_one_runtime_has_to_be_much_faster(exported, monkeypatch):
    layers = [(exported, layer) for layer in expert_layers(exported)]
    seconds = {"conditionals": 1.1, "rows": 1.0, "dense": 3.0, "batched": 3.0, "native": 0.95}
    monkeypatch.setattr(
        "toolkit.pipeline.experts._times",
        lambda _kind, names, _tokens, _finding: {name: [seconds[name]] for name in names},
    )
    assert fastest_lowering(layers, [1], silent).lowering == "rows"
    seconds["native"] = 0.5
    assert fastest_lowering(layers, [1], silent).lowering == "native"


def feeds_of(session, random, batch=2, sequence=7):
    """Random tokens and no past."""
    sizes = {"batch": batch, "sequence": sequence, "past_sequence": 0}
    feeds = {}
    for given in session.get_inputs():
        shape = [sizes.get(dim, dim) for dim in given.shape]
        shape = [dim if isinstance(dim, int) else sequence for dim in shape]
        drawn = random.integers(1, 9, size=shape)
        feeds[given.name] = drawn.astype(np.float32 if "float" in given.type else np.int64)
    ones, places = np.ones((batch, sequence), np.int64), np.arange(sequence)
    return feeds | {"attention_mask": ones, "position_ids": np.tile(places, (batch, 1))}


def test_native_for_tensorrt_is_its_own_layer_with_a_body(folder, exported, tmp_path):
    found = {}
    for experts in ("native", "rows"):
        plan = plan_for(folder, experts, target="tensorrt")
        out = tmp_path / f"{experts}.onnx"
        fuse_leaves(plan, {"mixtral": exported}, out, asked_passes(plan))
        found[experts] = out
    nodes = [n for n in onnx.load(found["native"]).graph.node if n.op_type == "TRT_MoE"]
    assert len(nodes) == 2
    ours, rows = (
        session.run(["logits"], feeds_of(session, np.random.default_rng(0)))[0]
        for session in map(ort.InferenceSession, map(str, found.values()))
    )
    np.testing.assert_allclose(ours, rows, rtol=0, atol=1e-5 * abs(rows).max())


def test_native_is_refused_for_another_target(folder):
    with pytest.raises(RecipeError, match="TensorRT-RTX cannot build"):
        recipe(folder, "native", more="target: tensorrt-rtx\n")


def test_models_without_experts_are_not_asked(folder, tmp_path):
    plan, record = settle_experts(plan_for(folder, "auto"), [net(tmp_path / "n.onnx", 0)], silent)
    assert record is None
    assert plan.recipe.export.experts == "auto"
