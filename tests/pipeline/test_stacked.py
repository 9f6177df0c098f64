"""Stacks through the whole pipeline: planned, exported, proven, explained, recorded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import weights, write_recipe
from toolkit.errors import RecipeError
from toolkit.feeds import cases
from toolkit.gates import combiner
from toolkit.parity import prove
from toolkit.pipeline import export_recipe
from toolkit.pipeline.explain import explain_graph
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.reference import baseline_runners, output_specs, reference_runner
from toolkit.pipeline.twin import fresh_twin
from toolkit.progress import silent
from toolkit.recipe import load_recipe, resolved_yaml
from toolkit.runtime import OrtRunner

RECIPE = """
model:
  stack:
    stages:
      - {{factory: "shop:linear", weights: linear.safetensors, name: a}}
      - {{factory: "shop:deep", weights: deep.safetensors, name: b}}
      - factory: "toolkit.gates:combiner"
        weights: combiner.safetensors
        kwargs: {{logits: "a_logits, b_logits", classes: 4, hidden: {hidden}}}
    feeds:
      a_logits: {{output: a/logits, type: "float32[batch, 4]"}}
      b_logits: {{output: b/logits, type: "float32[batch, 4]"}}
inputs: {{x: "float32[batch, 6]"}}
shapes: {{batch: [1, 4, 8]}}
export: {{precision: {precision}}}
parity: {{cases: 4}}
"""
X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def recipe(hidden=0, precision="float32"):
    return RECIPE.format(hidden=hidden, precision=precision)


def write_combiner(folder, hidden=0):
    module = combiner("a_logits, b_logits", 4, hidden)
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(seed)
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    save_file(module.state_dict(), folder / "combiner.safetensors")
    return module


@pytest.fixture
def stacked(shop):
    write_combiner(shop)
    return shop


def planned(folder, text):
    return make_plan(load_recipe(write_recipe(folder, text), allow_code=True), folder)


def built(plan, folder):
    folder.mkdir()
    exported = export_leaves(plan, folder, silent)
    fuse_leaves(plan, exported, folder / "model.onnx", asked_passes(plan))
    return folder / "model.onnx"


def said(kind, x=X):
    tensors = {name: tensor.double() for name, tensor in kind.items()}
    x = torch.from_numpy(x).double()
    if "inner.weight" in tensors:
        return x @ tensors["inner.weight"].T + tensors["inner.bias"]
    hidden = torch.tanh(x @ tensors["inner.0.weight"].T + tensors["inner.0.bias"])
    return hidden @ tensors["inner.2.weight"].T + tensors["inner.2.bias"]


@pytest.mark.parametrize(("hidden", "precision"), [(0, "float32"), (3, "float32"), (0, "float16")])
def test_a_stack_is_exported_and_proven(shop, hidden, precision):
    write_combiner(shop, hidden)
    loaded = load_recipe(write_recipe(shop, recipe(hidden, precision)), allow_code=True)
    outcome = export_recipe(loaded, shop, shop / "out")
    outcome.report.raise_if_failed()
    assert {source.member for source in outcome.manifest.sources} == {"a", "b", "combiner"}
    graph = onnx.load(outcome.folder / "model.onnx").graph
    assert [value.name for value in graph.input] == ["x"]
    assert [value.name for value in graph.output] == ["logits"]
    assert "fed a/logits, b/logits: PyTorch factory" in (outcome.folder / "report.html").read_text()


def test_the_graph_and_the_reference_compute_the_composition(stacked, tmp_path):
    plan = planned(stacked, recipe())
    tensors = load_file(stacked / "combiner.safetensors")
    parts = [said(load_file(stacked / f"{kind}.safetensors")) for kind in ("linear", "deep")]
    logs = torch.cat([part.log_softmax(-1) + np.log(4) for part in parts], -1)
    wanted = (logs @ tensors["head.weight"].T.double() + tensors["head.bias"]).numpy()
    with reference_runner(plan, "float64") as run:
        np.testing.assert_allclose(run({"x": X})["logits"], wanted, rtol=1e-12)
    with OrtRunner(built(plan, tmp_path / "graph")) as run:
        # Sums of eight products, of numbers below 10.
        np.testing.assert_allclose(run({"x": X})["logits"], wanted, rtol=0, atol=2e-5)


def test_a_combiner_that_listens_to_one_member_gives_its_answer(stacked, tmp_path):
    chosen = torch.cat([torch.zeros(4, 4), torch.eye(4)], -1)
    tensors = {"head.weight": chosen, "head.bias": torch.zeros(4)}
    save_file(tensors, stacked / "combiner.safetensors")
    with OrtRunner(built(planned(stacked, recipe()), tmp_path / "graph")) as run:
        found = run({"x": X})["logits"]
    wanted = said(weights("deep", 1)).log_softmax(-1) + np.log(4)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


NESTED = """
model:
  ensemble:
    combine: linear
    members:
      - {factory: "shop:linear", weights: a.safetensors, name: plain}
      - stack:
          stages:
            - name: mix
              ensemble:
                combine: linear
                gate:
                  top_k: 1
                  model: {factory: "shop:linear", weights: gate.safetensors, kwargs: {classes: 2}}
                members:
                  - {factory: "shop:linear", weights: linear.safetensors, name: m}
                  - {factory: "shop:deep", weights: deep.safetensors, name: n}
            - name: low
              stack:
                stages:
                  - {factory: "shop:linear", weights: b.safetensors, name: c}
                  - factory: "toolkit.gates:combiner"
                    name: first
                    weights: combiner.safetensors
                    kwargs: {logits: "said, mixed", classes: 4}
                feeds: {said: {output: c/logits, type: "float32[batch, 4]"}}
            - factory: "toolkit.gates:combiner"
              name: second
              weights: combiner.safetensors
              kwargs: {logits: "mixed, lower", classes: 4}
          feeds:
            mixed: {output: mix/logits, type: "float32[batch, 4]"}
            lower: {output: low/logits, type: "float32[batch, 4]"}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 2}
"""


def proof(plan, graph):
    return prove(
        reference_runner(plan, "float64"),
        baseline_runners(plan, "float32"),
        [OrtRunner(graph, optimise=False, threads=1), OrtRunner(graph, threads=1)],
        cases(plan.inputs, plan.shapes, seed=0, count=2),
        output_specs(plan),
    )


def test_stacks_and_ensembles_hold_each_other(stacked, tmp_path):
    for seed, name in enumerate(("a", "b"), start=20):
        save_file(weights("linear", seed), stacked / f"{name}.safetensors")
    drawn = {"inner.weight": torch.randn(2, 6), "inner.bias": torch.zeros(2)}
    save_file(drawn, stacked / "gate.safetensors")
    plan = planned(stacked, NESTED)
    assert [name for name, _ in plan.leaves()] == [
        "plain", "stack/mix/m", "stack/mix/n", "stack/mix/gate", "stack/low/c", "stack/low/first",
        "stack/second",
    ]  # fmt: skip
    assert [spec.name for spec in plan.inputs] == ["x"]
    graph = built(plan, tmp_path / "graph")
    report = proof(plan, graph)
    report.raise_if_failed()
    # a gate that picks one of two inside a stack still says which rows hang on rounding
    assert any(check.gate == "routing" for verdict in report.verdicts for check in verdict.checks)
    wanted = ["logits", "stack/logits", "stack/low/logits", "stack/mix/logits"]
    with reference_runner(plan, "float64") as run, fresh_twin(plan) as twin:
        found = twin.truth({"x": X}, wanted)
        np.testing.assert_allclose(found["logits"], run({"x": X})["logits"], rtol=1e-12)
    assert set(found) == set(wanted)


def test_a_member_of_a_gated_stage_can_be_skipped(stacked, tmp_path):
    save_file(weights("linear", 20), stacked / "a.safetensors")
    save_file(weights("linear", 21), stacked / "b.safetensors")
    drawn = {"inner.weight": torch.randn(2, 6), "inner.bias": torch.zeros(2)}
    save_file(drawn, stacked / "gate.safetensors")
    plain = built(planned(stacked, NESTED), tmp_path / "plain")
    plan = planned(stacked, NESTED + "passes: [{name: skip_gated_members}]\n")
    skipping = built(plan, tmp_path / "skipping")
    assert sum(node.op_type == "If" for node in onnx.load(skipping).graph.node) == 2
    with OrtRunner(plain) as one, OrtRunner(skipping) as other:
        np.testing.assert_array_equal(one({"x": X})["logits"], other({"x": X})["logits"])


GATED = """
model:
  ensemble:
    combine: linear
    gate:
      model:
        name: judge
        stack:
          stages:
            - {factory: "shop:linear", weights: linear.safetensors, name: c}
            - {factory: "shop:linear", weights: gate.safetensors, name: d, rename: {x: said},
               kwargs: {features: 4, classes: 2}}
          feeds: {said: {output: c/logits, type: "float32[batch, 4]"}}
    members:
      - {factory: "shop:linear", weights: linear.safetensors, name: a}
      - {factory: "shop:deep", weights: deep.safetensors, name: b}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
"""


def test_a_stack_is_a_gate(stacked, tmp_path):
    generator = torch.Generator().manual_seed(5)
    gate = {"inner.weight": torch.randn(2, 4, generator=generator), "inner.bias": torch.zeros(2)}
    save_file(gate, stacked / "gate.safetensors")
    plan = planned(stacked, GATED)
    graph = built(plan, tmp_path / "graph")
    proof(plan, graph).raise_if_failed()
    a, b = (said(load_file(stacked / f"{kind}.safetensors")) for kind in ("linear", "deep"))
    weights_of_rows = (a @ gate["inner.weight"].T.double()).softmax(-1)
    mixed = (torch.stack([a.softmax(-1), b.softmax(-1)], -1) * weights_of_rows[:, None]).sum(-1)
    with OrtRunner(graph) as run:
        np.testing.assert_allclose(run({"x": X})["logits"], mixed.log(), rtol=0, atol=2e-5)


def test_a_fault_in_a_stage_fails_the_proof_and_is_named(stacked, tmp_path):
    plan = planned(stacked, recipe())
    path = built(plan, tmp_path / "graph")
    model = onnx.load(path)
    (bias,) = [t for t in model.graph.initializer if t.name == "b/module.module.inner.0.bias"]
    moved = onnx.numpy_helper.to_array(bias) + np.float32(0.1)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.save(model, path)
    assert not proof(plan, path).passed
    with fresh_twin(plan) as twin:
        found = explain_graph(path, twin, cases(plan.inputs, plan.shapes, seed=0, count=2))
    assert {(suspect.member, suspect.op) for suspect in found.suspects} == {("b", "Gemm")}


def test_an_onnx_stage_takes_and_gives(stacked, tmp_path):
    """A file made elsewhere, behind a PyTorch stage: fed in its own precision."""
    alone = """
model: {factory: "shop:linear", weights: second.safetensors, kwargs: {features: 4}}
inputs: {x: "float32[batch, 4]"}
shapes: {batch: [1, 4, 8]}
"""
    second = {"inner.weight": torch.randn(4, 4), "inner.bias": torch.zeros(4)}
    save_file(second, stacked / "second.safetensors")
    built(planned(stacked, alone), tmp_path / "one").rename(stacked / "second.onnx")
    text = """
model:
  stack:
    stages:
      - {factory: "shop:deep", weights: deep.safetensors, name: a}
      - {onnx: second.onnx, name: b, rename: {x: said}}
      - {factory: "shop:linear", weights: second.safetensors, kwargs: {features: 4}, name: c,
         rename: {x: then}}
    feeds:
      said: {output: a/logits, type: "float32[batch, 4]"}
      then: {output: b/logits, type: "float32[batch, 4]"}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
"""
    plan = planned(stacked, text)
    proof(plan, built(plan, tmp_path / "graph")).raise_if_failed()
    with fresh_twin(plan) as twin:
        # what c is fed is an ONNX file's word, so nothing says what should be in it
        assert {name.partition("/")[0] for name in twin.truth.names} == {"a"}
        assert "a/logits" in twin.truth({"x": X}, ["a/logits"])


def test_the_resolved_recipe_loads_as_an_equal_one(stacked):
    loaded = load_recipe(write_recipe(stacked, recipe()), allow_code=True)
    again = load_recipe(write_recipe(stacked, resolved_yaml(loaded), "again.yaml"), allow_code=True)
    assert again.model == loaded.model


MISTAKES = {
    "unknown stage": (
        "output: a/logits", "output: c/logits",
        "feed 'a_logits' of stack 'stack' comes from no stage of it: 'c'",
        "stages before the last are a, b",
    ),
    "last stage": (
        "output: a/logits", "output: combiner/logits",
        "feed 'a_logits' of stack 'stack' comes from the last stage, 'combiner'",
        "stages before the last are a, b",
    ),
    "unknown output": (
        "output: a/logits", "output: a/hidden",
        "feed 'a_logits' of stack 'stack' is output 'hidden' of stage 'a', which has none of that name",  # noqa: E501
        "its outputs are logits",
    ),
    "nobody takes it": (
        "feeds:", "feeds:\n      spare: {output: a/logits, type: 'float32[batch, 4]'}",
        "feed 'spare' of stack 'stack' is taken by no stage behind 'a'",
        "they take x; join names with a stage's rename: {…}",
    ),
    "itself": (
        "feeds:", "feeds:\n      x: {output: a/logits, type: 'float32[batch, 6]'}",
        "stage 'a' takes 'x', which is fed from stage 'a' and not before it",
        "put that stage first, or give one of the two another name",
    ),
    "idle stage": (
        "output: b/logits", "output: a/logits",
        "stage 'b' of stack 'stack' feeds no other stage, so it is of no use",
        "feed one of its outputs to a later stage, or leave it out",
    ),
    "dimension": (
        'b/logits, type: "float32[batch', 'b/logits, type: "float32[n',
        "feed 'b_logits' is float32[n, 4], and no input of the graph has a dimension 'n'",
        "inputs have batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(stacked, mistake):
    old, new, message, hint = MISTAKES[mistake]
    assert old in recipe()
    with pytest.raises(RecipeError) as found:
        planned(stacked, recipe().replace(old, new))
    assert found.value.message == message
    assert found.value.hint == hint
