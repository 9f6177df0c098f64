"""Layers of experts of a graph made elsewhere, through a recipe."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

import graphs
from tests.graphs.foreign_moe import export
from tests.workshop import write_recipe
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

RECIPE = """
model: {{onnx: {name}_script.onnx}}
inputs: {{x: "float32[batch, sequence, 16]"}}
shapes: {{batch: [1, 2, 3], sequence: [1, 5, 9]}}
passes: [{{name: find_moe_blocks}}]
export: {{experts: {experts}}}
parity: {{cases: 3}}
"""


def bundle(folder, name, experts="conditionals"):
    export(folder, name, dynamo=False)
    recipe = load_recipe(write_recipe(folder, RECIPE.format(name=name, experts=experts)))
    return export_recipe(recipe, folder, folder / "bundle")


def test_a_recipe_has_them_found_gated_lowered_and_proven(tmp_path):
    outcome = bundle(tmp_path, "dispatched")
    assert outcome.report.passed
    model = onnx.load(tmp_path / "bundle" / "model.onnx", load_external_data=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["TopKGating"], kinds["If"], kinds["NonZero"]) == (1, 4, 0)
    (layer,) = graphs.expert_layers(tmp_path / "bundle" / "model.onnx")
    assert (layer.experts, layer.top_k, layer.hidden) == (4, 2, 16)


def test_layers_that_are_found_are_measured_as_well(tmp_path):
    experts = bundle(tmp_path, "dispatched", "auto").manifest.experts
    assert experts.reason.startswith("fastest in ONNX Runtime at 1, 10, 27 tokens")
    (layer,) = graphs.expert_layers(tmp_path / "bundle" / "model.onnx")
    assert layer.lowering == f"experts_to_{experts.lowering}"


def test_a_recipe_that_asks_in_vain_is_told_why(tmp_path):
    with pytest.raises(graphs.GraphError, match="'find_moe_blocks' was asked for") as error:
        bundle(tmp_path, "activations")
    assert "its experts have different activations: Relu and Tanh" in error.value.hint
