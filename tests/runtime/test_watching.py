"""Which experts PyTorch chooses is seen in every architecture, and watching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.moe_models import CAUSAL, MORE, tiny
from toolkit.nn import SparseMoE
from toolkit.runtime import Choice
from toolkit.runtime.watching import Watcher

# Two routers in a layer; a selection for each choice.
LAYERS = {"jetmoe": 4}
ONE_BY_ONE = {"phimoe"}
ONE_SPARSE = {
    "deepseek_v2", "deepseek_v3", "glm4_moe", "dots1", "afmoe", "glm4_moe_lite", "mimo_v2_flash",
    "lfm2_moe",
}  # fmt: skip


def told_by(model, **inputs):
    watcher = Watcher(model)
    with torch.inference_mode():
        before = model(**inputs)
        with watcher.watching() as told:
            after = model(**inputs)
    for one, other in zip(before, after, strict=True):
        if isinstance(before[one], torch.Tensor):
            assert torch.equal(before[one], after[other])
    return watcher, {Choice.read(name): array for name, array in told.items()}


@pytest.mark.parametrize("name", [*CAUSAL, *MORE])
def test_every_architecture_shows_its_choices_and_what_they_are_made_among(name):
    model, ids = tiny(name), torch.randint(3, 97, (2, 5), generator=torch.manual_seed(0))
    watcher, told = told_by(model, input_ids=ids, use_cache=False)
    chosen = {choice.place: array for choice, array in told.items() if choice.scores is None}
    count = LAYERS.get(name, 1 if name in ONE_SPARSE else 2)
    assert sorted(chosen) == list(range(count)) == list(range(len(watcher.layers)))
    for place, experts in chosen.items():
        assert experts.shape[0] == ids.numel()
        scores = {
            choice.scores: (choice.top, array)
            for choice, array in told.items()
            if choice.place == place and choice.scores is not None and array.shape[1] > 1
        }
        if name in ONE_BY_ONE:
            best = np.stack([array.argmax(1) for _, array in scores.values()], axis=1)
        else:
            top, last = scores[max(scores)]
            assert top == experts.shape[1]
            best = np.argsort(-last, axis=1)[:, :top]
        assert np.array_equal(np.sort(best), np.sort(experts))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_our_own_layer_tells_in_its_place():
    torch.manual_seed(0)
    layer = SparseMoE(8, 4, experts=5, k=3).eval()
    torch.nn.init.normal_(layer.gate)
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 8), layer), torch.randn(7, 8)
    watcher = Watcher(model, "member")
    with torch.no_grad(), watcher.watching() as told:
        hidden = model[0](x)
        model(x)
        ids = layer.choose(hidden)[1]
    name = Choice("member", 0, "1").name
    assert np.array_equal(told[name], ids.numpy())
    assert Choice.read(name) == Choice("member", 0, "1")
    assert Choice.read("logits") is None
