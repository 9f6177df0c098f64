"""Weights moved by a rounding: a little, every time the same, and only the weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from toolkit.runtime import ChangedSource, TorchRunner, jitter


def layers(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30)).to(dtype)


class Source:
    name, description, inputs, outputs, files = "it", "a layer", (), ("y",), ()

    def load(self, dtype: str = "float32") -> nn.Module:
        return layers(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_weight_moves_a_little(dtype):
    before, after = layers(dtype), layers(dtype)
    jitter(after, 1)
    old, new = before[0].weight.double(), after[0].weight.double()
    unit = torch.finfo(dtype).eps
    assert ((new - old).abs() <= 1.5 * unit * old.abs()).all()
    assert 0.3 < (new != old).double().mean() < 0.9


def test_the_seed_and_the_name_decide():
    once, again, other = layers(), layers(), layers()
    for module, seed in ((once, 1), (again, 1), (other, 2)):
        jitter(module, seed)
    assert torch.equal(once[0].weight, again[0].weight)
    assert not torch.equal(once[0].weight, other[0].weight)


def test_buffers_stay_and_tied_weights_stay_tied():
    module = layers()
    module.add_module("tied", nn.Linear(40, 30))
    module.tied.weight = module[0].weight
    kept = module[1].running_var.clone()
    jitter(module, 1)
    assert torch.equal(module[1].running_var, kept)
    assert module.tied.weight is module[0].weight


def test_a_source_is_jittered_when_loaded_and_says_what_it_is():
    source = ChangedSource(Source(), partial(jitter, seed=1))
    assert (source.name, source.description, source.files) == ("it", "a layer", ())
    assert (source.inputs, source.outputs) == ((), ("y",))
    assert TorchRunner(source).name == "pytorch float32"
    assert not torch.equal(source.load()[0].weight, layers()[0].weight)
