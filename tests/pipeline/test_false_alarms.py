"""Healthy graphs pass whatever their weights are, and small faults still fail."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import save_file

from tests.workshop import weights
from toolkit.feeds import cases
from toolkit.parity import prove
from toolkit.pipeline.plan import make_plan
from toolkit.pipeline.reference import baseline_runners, output_specs, reference_runner
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

SEEDS = range(20)
MEMBERS = ("linear", "deep")


@pytest.fixture(scope="module")
def workshop(exported, tmp_path_factory):
    """(a folder with the recipe and its code, the exported graph)."""
    folder, out, _ = exported
    place = tmp_path_factory.mktemp("seeds")
    for name in ("shop.py", "recipe.yaml"):
        (place / name).write_text((folder / name).read_text())
    return place, onnx.load(out / "model.onnx")


def reweighted(model, tensors, path, factor=1.0):
    """``model`` with a seed's weights; the first member's are scaled."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        for member, name in tensors:
            if tensor.name.startswith(f"{member}/") and tensor.name.endswith(name):
                values = tensors[member, name].numpy()
                if member == MEMBERS[0] and name.endswith("weight"):
                    values = values * np.float32(factor)
                assert list(values.shape) == list(tensor.dims)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(changed, path)
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_graph_passes_and_a_weight_off_by_three_in_ten_thousand_fails(workshop, seed):
    folder, model = workshop
    tensors = {}
    for index, member in enumerate(MEMBERS):
        drawn = weights(member, 100 + 10 * seed + index)
        save_file(drawn, folder / f"{member}.safetensors")
        tensors |= {(member, name): value for name, value in drawn.items()}
    plan = make_plan(load_recipe(folder / "recipe.yaml", allow_code=True), folder)

    def proof(factor):
        graph = reweighted(model, tensors, folder / "model.onnx", factor)
        return prove(
            reference_runner(plan, "float64"),
            baseline_runners(plan, "float32"),
            [OrtRunner(graph, optimise=False, threads=1), OrtRunner(graph, threads=1)],
            cases(plan.inputs, plan.shapes, seed=seed, count=2),
            output_specs(plan),
        )

    proof(1.0).raise_if_failed()
    assert not proof(1.0003).passed
