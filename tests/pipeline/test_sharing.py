"""Members with a common backbone: one copy in the bundle, and what is said of it stays true."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import save_file

from tests.workshop import weights, write_recipe
from toolkit.pipeline import explain_bundle, export_recipe, prove_bundle
from toolkit.recipe import load_recipe

RECIPE = """
model:
  ensemble:
    combine: linear
    members:
      - {factory: "shop:deep", weights: deep.safetensors, name: a}
      - {factory: "shop:deep", weights: tuned.safetensors, name: b}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 4}
"""


@pytest.fixture
def outcome(shop):
    tuned = weights("deep", 1)  # the seed that the workshop wrote deep.safetensors with
    tuned["inner.2.weight"] = -tuned["inner.2.weight"]
    save_file(tuned, shop / "tuned.safetensors")
    recipe = load_recipe(write_recipe(shop, RECIPE), allow_code=True)
    return export_recipe(recipe, shop, shop.parent / "bundle")


def test_the_backbone_is_there_once_and_the_proof_holds(outcome):
    assert outcome.report.passed
    ops = [node.op_type for node in onnx.load(outcome.folder / "model.onnx").graph.node]
    assert (ops.count("Tanh"), ops.count("Gemm")) == (1, 3)
    (shared,) = (step for step in outcome.passes if step.name == "deduplicate_subgraphs")
    (miss,) = shared.near_misses
    assert miss.reason.startswith(
        "b shares 2 of its 3 nodes with a; here b/module.module.inner.2.weight"
    )
    assert miss.reason in (outcome.folder / "report.html").read_text()


def test_a_defect_of_the_backbone_is_a_defect_of_both(outcome):
    path = outcome.folder / "model.onnx"
    proto = onnx.load(path)
    weight = next(t for t in proto.graph.initializer if t.name.endswith("inner.0.weight"))
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name)
    )
    onnx.save(proto, path)
    proof = prove_bundle(outcome.folder, allow_code=True, as_is=True)
    assert not proof.passed
    found = explain_bundle(outcome.folder, proof, allow_code=True)
    assert found.suspects[0].member == "a, b"
    assert found.suspects[0].module.endswith("inner.0")
