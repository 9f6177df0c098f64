"""Two tiny models with their fresh exports: an ensemble of three, and a BERT."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import weights, write_huggingface, write_recipe, write_workshop
from toolkit.feeds import Case
from toolkit.parity.explain import Twin
from toolkit.pipeline import Plan, make_plan
from toolkit.pipeline.explain import telling_cases
from toolkit.pipeline.twin import fresh_twin
from toolkit.recipe import load_recipe

ENSEMBLE = """
model:
  ensemble:
    combine: linear
    weights: [0.2, 0.5, 0.3]
    members:
      - {factory: "shop:linear", weights: linear.safetensors}
      - {factory: "shop:deep", name: first, weights: deep.safetensors}
      - {factory: "shop:deep", name: second, weights: other.safetensors}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 4}
"""
BERT = """
model: {checkpoint: bert}
shapes: {batch: [1, 2, 3], sequence: [1, 8, 12]}
parity: {cases: 4}
"""


@dataclass(frozen=True)
class Lab:
    """A plan, its fresh export, the healthy model in memory, and eight cases."""

    plan: Plan
    twin: Twin
    healthy: onnx.ModelProto
    samples: list[Case]


def lab(folder, text):
    plan = make_plan(load_recipe(write_recipe(folder, text), allow_code=True), folder)
    with fresh_twin(plan) as twin:
        yield Lab(
            plan, twin, onnx.load(twin.finished), telling_cases(plan, None, graph=twin.finished)
        )


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory):
    shop = write_workshop(tmp_path_factory.mktemp("ensemble") / "shop")
    save_file(weights("deep", seed=7), shop / "other.safetensors")
    yield from lab(shop, ENSEMBLE)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    file = write_huggingface(folder / "bert", "bert") / "model.safetensors"
    # Norms of one and biases of zero would hide faults.
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file, {"format": "pt"})
    yield from lab(folder, BERT)
