"""The layer: what it computes, that it trains, and that its losses balance it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from toolkit.nn import SparseMoE, balance_loss


def make(seed=0, **changes):
    torch.manual_seed(seed)
    layer = SparseMoE(6, 8, **{"experts": 4, "k": 2, **changes})
    with torch.no_grad():
        layer.gate.normal_()
    return layer


@pytest.mark.parametrize("gated", [True, False])
def test_output_is_the_weighted_sum_of_the_kept_experts(gated):
    layer = make(gated=gated, activation=functional.silu).double().eval()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    found = layer(x).reshape(-1, 6)
    for token, y in zip(x.reshape(-1, 6), found, strict=True):
        logits = layer.gate @ token
        kept = logits.argsort(descending=True)[:2]
        wanted = torch.zeros(6, dtype=torch.float64)
        for weight, expert in zip(logits[kept].softmax(0), kept, strict=True):
            rows = layer.up[expert] @ token + layer.up_bias[expert]
            rows = functional.silu(rows[:8]) * rows[8:] if gated else functional.silu(rows)
            wanted += weight * (layer.down[expert] @ rows + layer.down_bias[expert])
        torch.testing.assert_close(y, wanted, rtol=1e-6, atol=1e-6)  # the gate is in float32


def test_the_same_seed_gives_the_same_layer_and_noise():
    first, again = (make(seed=3).train()(torch.ones(4, 6)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, make(seed=4).train()(torch.ones(4, 6)))


def test_noise_is_for_training_only():
    layer, x = make(), torch.randn(4, 6)
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_every_parameter_learns():
    model = nn.Sequential(nn.Linear(6, 6), make().train())
    loss = model(torch.randn(40, 6)).square().mean() + balance_loss(model)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_layer_can_be_copied_after_a_pass_in_training():
    layer = make().train()
    layer(torch.randn(4, 6))
    assert layer.balance.requires_grad
    assert copy.deepcopy(layer).balance == 0


def test_balance_is_the_sum_of_both_losses():
    layer, x = make(importance_weight=0.5, load_weight=0).train(), torch.randn(9, 6)
    torch.manual_seed(7)
    weights, ids = layer.choose(x)
    importance = torch.stack([weights[ids == expert].sum() for expert in range(4)])
    wanted = 0.5 * importance.var(correction=0) / importance.mean() ** 2
    torch.testing.assert_close(layer.balance, wanted)
    layer.load_weight = 1.0
    torch.manual_seed(7)
    layer.choose(x)
    assert layer.balance > wanted


def busiest(importance_weight: float, load_weight: float) -> float:
    """The largest share of tokens one of 8 experts gets, after training on four clusters."""
    torch.manual_seed(0)
    centres = 2 * torch.randn(4, 6)
    layer = SparseMoE(
        6, 8, experts=8, k=1, importance_weight=importance_weight, load_weight=load_weight
    )
    with torch.no_grad():
        layer.gate[0] = centres.mean(0)  # a head start, which a gate without losses keeps
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(150):
        x = centres[torch.randint(0, 4, (128,))] + torch.randn(128, 6)
        loss = (layer(x) - x.sin()).square().mean() + balance_loss(layer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = centres[torch.randint(0, 4, (2000,))] + torch.randn(2000, 6)
    _, ids = layer.eval().choose(x)
    return ids.flatten().bincount(minlength=8).max().item() / 2000


def test_the_losses_balance_what_would_collapse():
    alone, balanced = busiest(0, 0), busiest(0.1, 0.1)
    assert alone > 2 * balanced


def test_capacity_silences_late_tokens_in_training_only():
    layer = make(capacity_factor=0.5, noise=False, k=1)
    x = torch.ones(8, 6)  # all choose the same: room for one
    _, ids = layer.eval().choose(x)
    assert len(ids.unique()) == 1
    assert (layer.eval().choose(x)[0] > 0).all()
    weights, _ = layer.train().choose(x)
    assert (weights > 0).flatten().tolist() == [True] + [False] * 7


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="k is 5, wanted 1 to 4"):
        SparseMoE(6, 8, experts=4, k=5)
