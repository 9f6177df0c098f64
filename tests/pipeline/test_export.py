"""A recipe becomes a bundle whose graph computes the recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

import graphs
from tests.workshop import RECIPE, write_huggingface, write_recipe
from toolkit.bundle import open_bundle
from toolkit.errors import CapabilityError, CheckpointError, RecipeError
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner


def export(shop, text, out="bundle", **changes):
    recipe = load_recipe(write_recipe(shop, text), allow_code=True)
    return export_recipe(recipe.model_copy(update=changes), shop, shop.parent / out)


def member(shop, kind, x):
    """A member's logits, from its weights by hand."""
    w = {name: tensor.double() for name, tensor in load_file(shop / f"{kind}.safetensors").items()}
    if kind == "linear":
        return x @ w["inner.weight"].T + w["inner.bias"]
    hidden = torch.tanh(x @ w["inner.0.weight"].T + w["inner.0.bias"])
    return hidden @ w["inner.2.weight"].T + w["inner.2.bias"]


def test_bundle_holds_what_it_promises(exported):
    _, out, outcome = exported
    names = {path.name for path in out.iterdir()}
    assert names == {"model.onnx", "parity.json", "recipe.yaml", "report.html", "manifest.json"}
    assert outcome.report.passed
    assert open_bundle(out).manifest == outcome.manifest
    assert json.loads((out / "parity.json").read_text())["verdict"] == "passed"
    assert outcome.manifest.shapes == {"batch": (1, 4, 8)}
    assert [s.path for s in outcome.manifest.sources if s.member == "linear"] == [
        "linear.safetensors",
        "shop.py",
    ]


def test_graph_computes_the_mixture(exported):
    shop, out, _ = exported
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    parts = [member(shop, kind, x.double()).softmax(-1) for kind in ("linear", "deep")]
    expected = (0.25 * parts[0] + 0.75 * parts[1]).log()
    with OrtRunner(out / "model.onnx") as runner:
        found = runner({"x": x.numpy()})["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_second_export_gives_the_same_bytes(exported, tmp_path):
    shop, out, _ = exported
    recipe = load_recipe(shop / "recipe.yaml", allow_code=True)
    export_recipe(recipe, shop, tmp_path / "again")
    for name in ("model.onnx", "parity.json", "recipe.yaml", "report.html"):
        same = (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert same or name == "report.html"  # its title is the folder's name


def test_graph_carries_no_paths_and_readable_names(exported):
    shop, out, _ = exported
    text = str(onnx.load(out / "model.onnx"))
    assert str(shop) not in text
    assert "site-packages" not in text
    assert "stack_trace" not in text
    names = [node.name for node in onnx.load(out / "model.onnx").graph.node]
    assert any(name.startswith("linear/") for name in names)
    assert any(name.startswith("deep/") for name in names)
    assert sum(name.split("/")[-1] == "interpolation" for name in names) == 1


def test_resolved_recipe_builds_the_same_graph(exported, tmp_path):
    shop, out, _ = exported
    again = load_recipe(out / "recipe.yaml", allow_code=True, root=shop)
    export_recipe(again, shop, tmp_path / "again")
    assert (out / "model.onnx").read_bytes() == (tmp_path / "again/model.onnx").read_bytes()


def test_input_that_only_one_member_needs_stays_an_input(shop):
    outcome = export(
        shop,
        """
model:
  ensemble:
    combine: log_linear
    weights: [1, 1]
    members:
      - {factory: "shop:linear", weights: linear.safetensors}
      - {factory: "shop:two_inputs", weights: two_inputs.safetensors, rename: {x: pixels}}
inputs: {x: "float32[batch, 6]", pixels: "float32[batch, 6]", extra: "float32[batch, 3]"}
shapes: {batch: [1, 2, 3]}
parity: {cases: 3}
""",
    )
    assert outcome.report.passed
    assert [t.name for t in outcome.manifest.inputs] == ["x", "pixels", "extra"]


def test_ensembles_nest_and_take_foreign_onnx(shop, exported):
    shutil.copy(exported[1] / "model.onnx", shop / "foreign.onnx")
    outcome = export(
        shop,
        """
model:
  ensemble:
    combine: log_linear
    members:
      - {onnx: foreign.onnx}
      - ensemble:
          combine: linear
          members:
            - {factory: "shop:linear", weights: linear.safetensors}
            - ensemble:
                combine: log_linear
                weights: [1, 0.5]
                members:
                  - {factory: "shop:deep", weights: deep.safetensors}
                  - {factory: "shop:linear", weights: linear.safetensors, name: again}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 3}
""",
    )
    assert outcome.report.passed
    assert len(outcome.manifest.sources) == 1 + 3 * 2


@pytest.mark.parametrize("space", ["probabilities", "values"])
def test_other_spaces_are_proven_too(shop, exported, space):
    """The exported ensemble's outputs are no probabilities, so values; exp makes them so."""
    graph = onnx.load(exported[1] / "model.onnx")
    if space == "probabilities":
        graph.graph.node.append(onnx.helper.make_node("Exp", ["logits"], ["p"]))
        graph.graph.output[0].name = "p"
    onnx.save(graph, shop / "a.onnx")
    name = graph.graph.output[0].name
    outcome = export(
        shop,
        f"""
model:
  ensemble:
    combine: linear
    space: {space}
    output: {name}
    weights: [0.25, 0.75]
    members: [{{onnx: a.onnx}}, {{onnx: a.onnx, name: b}}]
shapes: {{batch: [1, 4, 8]}}
parity: {{cases: 3}}
""",
    )
    assert outcome.report.passed


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_hugging_face_model_passes_at_sequence_one_and_at_the_maximum(tmp_path, kind):
    write_huggingface(tmp_path / kind, kind)
    (tmp_path / kind / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    recipe = write_recipe(
        tmp_path,
        f"model: {{checkpoint: {kind}}}\nshapes: {{batch: [1, 2, 3], sequence: [1, 8, 40]}}\n",
    )
    outcome = export_recipe(load_recipe(recipe), tmp_path, tmp_path / "out")
    assert outcome.report.passed
    sizes = {case.dims["sequence"] for case in outcome.report.cases}
    assert {1, 8, 40} <= sizes
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert "tokenizer.json" in outcome.manifest.files


def test_shapes_default_to_what_the_model_allows(tmp_path):
    write_huggingface(tmp_path / "bert", "bert")
    recipe = write_recipe(tmp_path, "model: {checkpoint: bert}\nparity: {cases: 1}\n")
    outcome = export_recipe(load_recipe(recipe), tmp_path, tmp_path / "out")
    assert outcome.manifest.shapes == {"batch": (1, 4, 16), "sequence": (1, 40, 40)}
    resolved = load_recipe(tmp_path / "out" / "recipe.yaml", root=tmp_path)
    assert resolved.shapes["sequence"].max == 40


def test_different_tokenizers_on_one_input_are_refused(tmp_path):
    for name, vocabulary in (("a", '{"x": 0}'), ("b", '{"y": 0}')):
        write_huggingface(tmp_path / name, "llama")
        text = f'{{"model": {{"vocab": {vocabulary}}}}}'
        (tmp_path / name / "tokenizer.json").write_text(text)
    recipe = write_recipe(
        tmp_path,
        "model: {ensemble: {combine: linear, members: [{checkpoint: a}, {checkpoint: b}]}}\n"
        "shapes: {batch: 1, sequence: [1, 2, 4]}\n",
    )
    with pytest.raises(RecipeError, match="'a' and 'b' share the input 'input_ids'") as found:
        export_recipe(load_recipe(recipe), tmp_path, tmp_path / "out")
    assert "rename: {input_ids: b_input_ids}" in found.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.rtx
def test_rtx_target_leaves_an_engine(shop):
    outcome = export(shop, RECIPE + "target: tensorrt-rtx\n")
    assert outcome.engine is not None
    assert (outcome.folder / "model.plan").stat().st_size > 1000
    assert outcome.manifest.engine.flavour == "tensorrt-rtx"


def test_tensorrt_target_without_tensorrt_leaves_the_proven_bundle_and_says_what_is_left(shop):
    outcome = export(shop, RECIPE + "target: tensorrt\n")
    assert outcome.report.passed
    assert (outcome.manifest.target, outcome.manifest.engine) == ("tensorrt", None)
    assert open_bundle(outcome.folder).manifest == outcome.manifest
    assert isinstance(outcome.unbuilt, CapabilityError)
    assert outcome.unbuilt.exit_code == 4
    assert "holds the proven graph, without its engine" in outcome.unbuilt.message
    assert "this machine lacks the Python package tensorrt" in outcome.unbuilt.message
    assert outcome.unbuilt.hint.endswith(f"then: toolkit build {outcome.folder}")


def test_failed_proof_publishes_evidence_elsewhere(shop, monkeypatch):
    """The graph is fused with its members swapped, behind the pipeline's back."""
    from toolkit.pipeline import graph as stage

    honest = stage.graph_tree

    def swapped(node, prefix, exported):
        tree = honest(node, prefix, exported)
        if prefix or isinstance(tree, graphs.Leaf):
            return tree
        first, second = tree.members
        crossed = (replace(first, path=second.path), replace(second, path=first.path))
        return replace(tree, members=crossed)

    monkeypatch.setattr(stage, "graph_tree", swapped)
    outcome = export(shop, RECIPE)
    assert not outcome.report.passed
    assert not (shop.parent / "bundle").exists()
    evidence = open_bundle(shop.parent / "bundle.failed")
    assert evidence.manifest.verdict == "failed"
    monkeypatch.setattr(stage, "graph_tree", honest)
    assert export(shop, RECIPE).report.passed
    assert not (shop.parent / "bundle.failed").exists()


def test_nan_in_a_weight_is_named_before_anything_is_exported(shop):
    from safetensors.torch import save_file

    from tests.workshop import weights

    harmed = weights("deep")
    harmed["inner.2.weight"][1, 3] = float("nan")
    save_file(harmed, shop / "deep.safetensors")
    with pytest.raises(CheckpointError, match=r"inner\.2\.weight"):
        export(shop, RECIPE)
    assert [p.name for p in shop.parent.iterdir()] == ["shop"]


def test_required_pass_that_rewrites_nothing_is_an_error(shop):
    with pytest.raises(graphs.GraphError, match="was asked for and rewrote nothing"):
        export(shop, RECIPE + "passes: [{name: deduplicate_subgraphs}]\n")
