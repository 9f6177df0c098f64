"""Noisy top-k gating and its losses, against Shazeer et al.'s formulas written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.nn.gating import keep_top_k, load, noisy, squared_variation, within_capacity


def drawn(tokens=7, experts=5):
    torch.manual_seed(0)
    clean = torch.randn(tokens, experts, dtype=torch.float64)
    deviation = torch.rand(tokens, experts, dtype=torch.float64) + 0.1
    return clean, deviation, noisy(clean, deviation)


def test_weights_are_the_softmax_of_the_kept_logits():
    _, _, logits = drawn()
    weights, ids = keep_top_k(logits, 3)
    for row, kept, chosen in zip(logits.tolist(), weights.tolist(), ids.tolist(), strict=True):
        best = sorted(range(5), key=lambda i: -row[i])[:3]
        mass = sum(math.exp(row[i]) for i in best)
        assert chosen == best
        assert kept == pytest.approx([math.exp(row[i]) / mass for i in best])


@pytest.mark.parametrize("experts", [4, 40, 3000])
def test_ties_go_to_the_lowest_expert(experts):
    logits = torch.zeros(2, experts)
    logits[1, -3:] = 1
    _, ids = keep_top_k(logits, 2)
    assert ids.tolist() == [[0, 1], [experts - 3, experts - 2]]


def test_load_counts_the_probability_of_being_chosen_again():
    clean, deviation, logits = drawn()
    k, wanted = 2, [0.0] * 5
    for x in range(7):
        for i in range(5):
            others = sorted((logits[x, j].item() for j in range(5) if j != i), reverse=True)
            z = (clean[x, i].item() - others[k - 1]) / deviation[x, i].item()
            wanted[i] += 0.5 * (1 + math.erf(z / math.sqrt(2)))
    assert load(clean, deviation, logits, k).tolist() == pytest.approx(wanted)


def test_load_is_the_expected_count_of_tokens():
    """By drawing one expert's noise many times: P is the frequency of being among the best."""
    torch.manual_seed(1)
    clean, deviation, logits = (part[:1] for part in drawn())
    again = logits.repeat(20000, 1)
    again[:, 2] = clean[0, 2] + torch.randn(20000, dtype=torch.float64) * deviation[0, 2]
    chosen = (again.topk(2, dim=-1).indices == 2).any(-1).double().mean().item()
    assert load(clean, deviation, logits, 2)[2].item() == pytest.approx(chosen, abs=0.015)


def test_every_expert_is_chosen_where_k_is_their_number():
    clean, deviation, logits = drawn()
    assert load(clean, deviation, logits, 5).tolist() == [7.0] * 5


def test_load_and_variation_have_the_gradient_of_finite_differences():
    clean, deviation, logits = drawn()
    clean.requires_grad_()
    deviation.requires_grad_()

    def loss(clean, deviation):
        return squared_variation(load(clean, deviation, logits, 2))

    assert torch.autograd.gradcheck(loss, (clean, deviation))


def test_variation_is_that_of_the_definition():
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    assert squared_variation(values).item() == pytest.approx((4 + 1 + 9) / 3 / 3**2)
    assert squared_variation(torch.ones(4)).item() == 0
    assert squared_variation(torch.zeros(4)).item() == 0


def test_room_goes_to_the_first_tokens():
    ids = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 1]])
    # 8 slots, 4 experts: room for 2, and for 3 at a factor of 1.5.
    even = [[True, True], [True, True], [False, True], [False, False]]
    assert within_capacity(ids, 4, 1.0).tolist() == even
    assert within_capacity(ids, 4, 1.5).sum().item() == 7
