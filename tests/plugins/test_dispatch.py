"""The kernels' dispatch, compiled for the host, against a stable sort."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu.reference import dispatch
from tests.plugins import host

# Less than a segment, several, many of the longest; one expert, more experts than slots.
SIZES = [(0, 2, 4), (1, 1, 1), (7, 2, 3), (64, 6, 64), (700, 8, 128), (40_000, 8, 60), (3, 2, 1024)]


@pytest.mark.parametrize(("tokens", "k", "experts"), SIZES)
@pytest.mark.parametrize("skewed", [False, True])
def test_dispatch_is_a_stable_sort(lib, tokens, k, experts, skewed):
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(experts, (tokens, k), generator=generator)
    if skewed:
        ids = ids * (torch.rand(tokens, k, generator=generator) < 0.1)
    found = host.dispatch(lib, ids, experts)
    for name, left, right in zip(
        ("token_of_row", "row_of_slot", "offsets", "active"),
        found,
        dispatch(ids, experts),
        strict=True,
    ):
        assert torch.equal(left, right), name


def test_ids_that_are_no_expert_stay_inside_the_outputs(lib):
    ids = torch.tensor([[0, 9], [-1, 1]])
    token_of_row, row_of_slot, offsets, active = host.dispatch(lib, ids, 3)
    assert token_of_row.tolist() == [0, 1, 0, 1]
    assert row_of_slot.tolist() == [0, 2, 3, 1]
    assert offsets.tolist() == [0, 1, 2, 4]
    assert active.all()


@pytest.mark.parametrize("capacity", [0, 1, 3, 8])
def test_the_padded_table_holds_each_experts_tokens_and_zeros(lib, capacity):
    ids = torch.tensor([[2, 0], [2, 3], [2, 0]])
    token_of_row, _, offsets, _ = dispatch(ids, 5)
    table = host.padded(lib, token_of_row, offsets, capacity)
    wanted = torch.zeros(5, 8, dtype=torch.int64)
    wanted[0, :2], wanted[2, :3], wanted[3, :1] = torch.tensor([0, 2]), torch.arange(3), 1
    assert torch.equal(table, wanted[:, :capacity])
