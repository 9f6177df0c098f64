"""Gated ensembles through the whole pipeline: planned, exported, proven, explained, recorded."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import write_recipe
from toolkit.errors import RecipeError
from toolkit.feeds import cases
from toolkit.parity import prove
from toolkit.pipeline import explain_bundle, export_recipe
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.reference import baseline_runners, output_specs, reference_runner
from toolkit.pipeline.twin import fresh_twin
from toolkit.progress import silent
from toolkit.recipe import load_recipe, resolved_yaml
from toolkit.runtime import OrtRunner

RECIPE = """
model:
  ensemble:
    combine: {combine}
    gate:
      model: {{factory: "shop:linear", weights: gate.safetensors, kwargs: {{classes: 2}}}}
      {options}
    members:
      - {{factory: "shop:linear", weights: linear.safetensors}}
      - {{factory: "shop:deep", weights: deep.safetensors}}
inputs: {{x: "float32[batch, 6]"}}
shapes: {{batch: [1, 4, 8]}}
passes: [{passes}]
export: {{precision: {precision}}}
parity: {{cases: 4}}
"""


def recipe(combine="linear", options="top_k: 1", passes="", precision="float32"):
    return RECIPE.format(combine=combine, options=options, passes=passes, precision=precision)


def write_gate(folder, seed=9, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"inner.weight": (2, 6), "inner.bias": (2,)}
    drawn = {
        name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    save_file(drawn, folder / "gate.safetensors")


@pytest.fixture
def gated(shop):
    write_gate(shop)
    return shop


def planned(folder, text):
    return make_plan(load_recipe(write_recipe(folder, text), allow_code=True), folder)


@pytest.mark.parametrize(
    ("combine", "options", "passes", "precision"),
    [
        ("linear", "top_k: 1", "", "float32"),
        ("linear", "top_k: 1", "{name: skip_gated_members}", "float32"),
        ("linear", "top_k: 1", "{name: skip_gated_members}", "float16"),
        ("log_linear", "activation: softplus", "", "float32"),
        ("linear", "output: logits", "{name: skip_gated_members, threshold: 1.0e-9}", "float32"),
    ],
)
def test_a_gated_ensemble_is_exported_and_proven(gated, combine, options, passes, precision):
    text = recipe(combine, options, passes, precision)
    loaded = load_recipe(write_recipe(gated, text), allow_code=True)
    outcome = export_recipe(loaded, gated, gated / "out")
    outcome.report.raise_if_failed()
    assert {source.member for source in outcome.manifest.sources} == {"linear", "deep", "gate"}
    graph = onnx.load(outcome.folder / "model.onnx").graph
    assert [value.name for value in graph.input] == ["x"]
    assert sum(node.op_type == "If" for node in graph.node) == (2 if passes else 0)
    page = (outcome.folder / "report.html").read_text()
    assert "gate, " in page


def test_the_gate_stays_in_float32_where_members_are_in_half_precision(gated):
    loaded = load_recipe(write_recipe(gated, recipe(precision="float16")), allow_code=True)
    outcome = export_recipe(loaded, gated, gated / "out")
    kinds = {t.name.partition("/")[0]: t.data_type for t in onnx.load(
        outcome.folder / "model.onnx").graph.initializer if t.name.endswith("weight")}  # fmt: skip
    assert kinds == {"linear": 10, "deep": 10, "gate": 1}


def test_the_resolved_recipe_loads_as_an_equal_one(gated):
    loaded = load_recipe(write_recipe(gated, recipe()), allow_code=True)
    text = resolved_yaml(loaded)
    assert "weights: [" not in text
    again = load_recipe(write_recipe(gated, text, "again.yaml"), allow_code=True)
    assert again.model == loaded.model


def proof(plan, graph, seed=0):
    return prove(
        reference_runner(plan, "float64"),
        baseline_runners(plan, "float32"),
        [OrtRunner(graph, optimise=False, threads=1), OrtRunner(graph, threads=1)],
        cases(plan.inputs, plan.shapes, seed=seed, count=2),
        output_specs(plan),
    )


def built(plan, folder):
    folder.mkdir()
    exported = export_leaves(plan, folder, silent)
    fuse_leaves(plan, exported, folder / "model.onnx", asked_passes(plan))
    return folder / "model.onnx"


@pytest.mark.parametrize("seed", range(6))
def test_healthy_gates_of_any_weights_pass(gated, seed, tmp_path):
    write_gate(gated, seed, scale=10.0 ** (seed - 3))
    plan = planned(gated, recipe())
    report = proof(plan, built(plan, tmp_path / "graph"), seed)
    report.raise_if_failed()
    (check,) = [c for v in report.verdicts for c in v.checks if c.gate == "routing"]
    assert check.measured < 0.2  # the case of zeros may tie


def near_tie(folder, gap):
    """A gate whose two scores differ by ``gap`` alone, which is far below their rounding."""
    row = torch.randn(6, generator=torch.Generator().manual_seed(3))
    tensors = {"inner.weight": torch.stack([row, row]), "inner.bias": torch.tensor([0.0, gap])}
    save_file(tensors, folder / "gate.safetensors")


def test_near_ties_are_left_out_and_counted_and_too_many_fail(gated, tmp_path):
    near_tie(gated, 1e-8)
    plan = planned(gated, recipe())
    report = proof(plan, built(plan, tmp_path / "graph"))
    failing = {check.gate for _, check in report.failures()}
    assert failing == {"routing"}
    assert "hang on a near tie of a gate" in report.failures()[0][1].detail


def test_a_choice_that_rounding_turns_is_not_held_against_the_graph(gated, tmp_path):
    """PyTorch's float32 chooses as float64 does, and a graph a few roundings away does not."""
    near_tie(gated, 1e-6)
    plan = planned(gated, recipe())
    path = built(plan, tmp_path / "graph")
    model = onnx.load(path)
    gate = [tensor for tensor in model.graph.initializer if tensor.name.startswith("gate/")]
    tensors = [tensor for tensor in gate if len(tensor.dims) == 2]
    values = onnx.numpy_helper.to_array(tensors[0])
    halves = values.shape[0] == 2
    nudge = np.float32([1 + 2.0**-20, 1])
    changed = values * (nudge[:, None] if halves else nudge)
    tensors[0].CopyFrom(onnx.numpy_helper.from_array(changed, tensors[0].name))
    onnx.save(model, path)
    assert {check.gate for _, check in proof(plan, path).failures()} == {"routing"}


def test_a_gate_that_chooses_wrongly_fails(gated, tmp_path):
    plan = planned(gated, recipe())
    path = built(plan, tmp_path / "graph")
    model = onnx.load(path)
    (bias,) = [t for t in model.graph.initializer if t.name == "gate/module.module.inner.bias"]
    swapped = onnx.numpy_helper.to_array(bias)[::-1].copy()
    bias.CopyFrom(onnx.numpy_helper.from_array(swapped, bias.name))
    onnx.save(model, path)
    assert not proof(plan, path).passed


def test_the_trace_of_a_gated_ensemble_shows_members_gate_and_result(gated):
    plan = planned(gated, recipe())
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    with reference_runner(plan, "float64") as run:
        wanted = run({"x": x})["logits"]
    with fresh_twin(plan) as twin:
        found = twin.truth({"x": x}, ["logits", "gate/logits", "deep/logits"])
    assert set(found) == {"logits", "gate/logits", "deep/logits"}
    np.testing.assert_allclose(found["logits"], wanted, rtol=1e-12)


def test_a_gate_takes_the_inputs_that_the_members_know(gated, tmp_path):
    """Members that know their inputs need none declared, and a factory gate joins by name."""
    single = """
model: {factory: "shop:linear", weights: linear.safetensors}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
"""
    path = built(planned(gated, single), tmp_path / "one")
    for name in "ab":
        shutil.copyfile(path, gated / f"{name}.onnx")
    text = """
model:
  ensemble:
    combine: linear
    gate: {model: {factory: "shop:linear", weights: gate.safetensors, kwargs: {classes: 2}}}
    members: [{onnx: a.onnx}, {onnx: b.onnx}]
shapes: {batch: [1, 4, 8]}
"""
    plan = planned(gated, text)
    assert [spec.name for spec in plan.inputs] == ["x"]
    assert [name for name, _ in plan.leaves()] == ["a", "b", "gate"]


def test_members_that_did_not_run_are_not_called_wrong(gated):
    """What stands in for a skipped member is zeros, which PyTorch's values are not."""
    text = recipe(passes="{name: skip_gated_members}")
    loaded = load_recipe(write_recipe(gated, text), allow_code=True)
    outcome = export_recipe(loaded, gated, gated / "out")
    found = explain_bundle(outcome.folder, outcome.report, allow_code=True)
    assert [one for one in found.suspects if not one.within] == []
    assert {"linear/logits", "interpolation/stack"} <= set(found.unmatched)
    assert "logits" not in found.unmatched


def test_an_output_that_the_gate_does_not_have_is_named(gated):
    with pytest.raises(RecipeError, match="the gate 'gate' has no output 'w'") as found:
        planned(gated, recipe(options="output: w"))
    assert found.value.hint == "it has logits"
