"""Which layers skip silent neurons, and what the bundle says of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import write_recipe
from toolkit.bundle import open_bundle
from toolkit.errors import RecipeError
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

CODE = """
from torch import nn

def feed_forward(width, neurons):
    return Layer(nn.Sequential(nn.Linear(width, neurons), nn.ReLU(), nn.Linear(neurons, width)))

class Layer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)
"""
RECIPE = """
model: {{factory: "{module}:feed_forward", weights: net.safetensors, kwargs: {{width: {width}, neurons: {neurons}}}}}
inputs: {{x: "float32[batch, {width}]"}}
shapes: {{batch: [1, 1, 2]}}
parity: {{cases: 1, budget: 1s{inputs}}}
export: {{silent_neurons: {wanted}}}
"""  # noqa: E501


def write(folder, *, bias, width=512, neurons=2048):
    """Weights whose up projection says more than zero the less often the lower its bias is."""
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes):
        return torch.randn(sizes, generator=generator) / sizes[-1] ** 0.5

    tensors = {
        "inner.0.weight": normal(neurons, width),
        "inner.0.bias": torch.full((neurons,), bias),
        "inner.2.weight": normal(width, neurons),
        "inner.2.bias": normal(width),
    }
    save_file(tensors, folder / "net.safetensors")
    (folder / "net.py").write_text(CODE)
    rows = np.random.default_rng(0).normal(size=(32, width)).astype(np.float32)
    np.savez(folder / "real.npz", x=rows)
    return folder


def export(folder, wanted, width=512, neurons=2048, module="net"):
    real = ", inputs: real.npz" if (folder / "real.npz").exists() else ""
    text = RECIPE.format(module=module, wanted=wanted, width=width, neurons=neurons, inputs=real)
    recipe = load_recipe(write_recipe(folder, text), allow_code=True)
    return export_recipe(recipe, folder, folder / "out")


def kinds(folder):
    return {node.op_type for node in onnx.load(folder / "out" / "model.onnx").graph.node}


def test_a_silent_layer_skips_and_is_proven(tmp_path):
    outcome = export(write(tmp_path, bias=-2.5), "auto")
    assert outcome.report.passed
    record = open_bundle(tmp_path / "out").manifest.neurons
    (layer,) = record.layers.values()
    assert layer.skipped
    assert record.seen == "the recipe's real inputs"
    assert 0.98 < layer.silent["1"] < 1  # P(z > 2.5) is 0.6 %
    assert layer.silent["8"] < layer.silent["4"] < layer.silent["1"]
    assert 0.3 < layer.break_even["1"] < 0.98
    whole, skipping = layer.milliseconds["1"]
    assert skipping < whole
    assert "If" in kinds(tmp_path)
    assert "silent_neurons: 'on'" in (tmp_path / "out" / "recipe.yaml").read_text()


def test_a_layer_that_speaks_is_left_alone(tmp_path):
    outcome = export(write(tmp_path, bias=1.0), "auto")
    (layer,) = outcome.manifest.neurons.layers.values()
    assert not layer.skipped
    assert layer.silent["1"] < 0.25
    assert "If" not in kinds(tmp_path)


def test_small_layers_are_not_measured(tmp_path):
    outcome = export(write(tmp_path, bias=-2.5, width=8, neurons=16), "auto", 8, 16)
    assert "nothing was measured" in outcome.manifest.neurons.reason
    assert "If" not in kinds(tmp_path)


def test_on_is_done_whatever_it_costs_and_off_says_nothing(tmp_path):
    write(tmp_path, bias=0.0, width=8, neurons=16)
    outcome = export(tmp_path, "on", 8, 16)
    assert outcome.report.passed
    assert outcome.manifest.neurons.reason == "the recipe says so"
    assert "If" in kinds(tmp_path)
    assert export(tmp_path, "off", 8, 16).manifest.neurons is None


def test_on_without_such_a_layer_is_refused(tmp_path):
    write(tmp_path, bias=0.0, width=8, neurons=16)
    (tmp_path / "smooth.py").write_text(CODE.replace("ReLU", "GELU"))
    with pytest.raises(RecipeError) as caught:
        export(tmp_path, "on", 8, 16, "smooth")
    assert "no down projection reads a ReLU" in caught.value.message
    assert not (tmp_path / "out").exists()
