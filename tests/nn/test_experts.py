"""The grouped linear layer: its definition, its gradients, and what its operator promises."""

from __future__ import annotations

import pytest
import torch

from toolkit.nn import combine, expert_linear


def make(tokens=5, *, spread=2, bias=True):
    k, experts, dtype = 2, 4, torch.float64
    torch.manual_seed(0)
    rows = tokens * k // spread
    x = torch.randn(rows, 3, dtype=dtype)
    ids = torch.randint(0, experts, (tokens, k))
    weight = torch.randn(experts, 6, 3, dtype=dtype)
    return x, ids, weight, torch.randn(experts, 6, dtype=dtype) if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spread", [1, 2])
def test_each_slot_is_multiplied_by_the_weight_it_chose(spread, bias):
    x, ids, weight, offset = make(spread=spread, bias=bias)
    found = expert_linear(x, ids, weight, offset, spread=spread)
    for slot, expert in enumerate(ids.flatten().tolist()):
        wanted = weight[expert] @ x[slot // spread]
        wanted = wanted if offset is None else wanted + offset[expert]
        torch.testing.assert_close(found[slot], wanted)


@pytest.mark.parametrize("spread", [1, 2])
def test_gradients_are_those_of_finite_differences(spread):
    x, ids, weight, bias = make(spread=spread)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, b: expert_linear(x, ids, w, b, spread=spread), (x, weight, bias)
    )


def test_an_expert_that_nobody_chose_is_not_run():
    x, ids, weight, bias = make()
    ids = ids.clamp(min=1, max=2)
    assert ids.unique().tolist() == [1, 2]
    with torch.profiler.profile() as profile:
        expert_linear(x, ids, weight, bias, spread=2)
    products = [event for event in profile.events() if event.name == "aten::linear"]
    assert len(products) == 2


def test_no_tokens_give_no_rows():
    x, ids, weight, bias = make(tokens=0)
    assert expert_linear(x, ids, weight, bias, spread=2).shape == (0, 6)


def test_rows_that_do_not_fill_the_slots_are_refused():
    x, ids, weight, _ = make()
    with pytest.raises(ValueError, match=r"5 rows, each for 1 slots, do not fill ids \(5, 2\)"):
        expert_linear(x, ids, weight)


def test_operator_keeps_the_rules_that_tracing_relies_on():
    torch.library.opcheck(
        torch.ops.toolkit.expert_linear.default,
        (*(t.float() if t.is_floating_point() else t for t in make()), 2),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_combining_sums_what_the_experts_of_a_token_say_in_the_wider_type():
    rows, weights = torch.randn(6, 4).half(), torch.rand(3, 2)
    found = combine(rows, weights)
    assert found.dtype is torch.float32
    wanted = sum(weights[:, j, None] * rows.view(3, 2, 4)[:, j].float() for j in range(2))
    torch.testing.assert_close(found, wanted)
