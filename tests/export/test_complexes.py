"""Axes of complex tensors, taken through their pairs, are the axes PyTorch gives them."""

from __future__ import annotations

import pytest
import torch

from toolkit.export.complexes import ComplexAsPairs

Z = torch.polar(torch.rand(2, 3, 4) + 1, torch.rand(2, 3, 4))


@pytest.mark.parametrize("dim", [0, 1, 3, -1, -4])
def test_an_added_axis_stands_where_it_was_asked_for(dim):
    with ComplexAsPairs():
        found = Z.unsqueeze(dim), torch.unsqueeze(Z, dim=dim)
    assert all(torch.equal(each, Z.unsqueeze(dim)) for each in found)


@pytest.mark.parametrize(
    "index", [0, (slice(None), 1), (slice(None), slice(None), None, slice(None)), (..., 2), None]
)
def test_an_index_takes_what_it_takes(index):
    with ComplexAsPairs():
        found = Z[index]
    assert torch.equal(found, Z[index])


def test_pairs_are_what_is_traced():
    class Rotated(torch.nn.Module):
        def forward(self, x):
            z = torch.view_as_complex(x)
            return torch.view_as_real(z[:, None] * z.unsqueeze(1))

    with ComplexAsPairs():
        traced = torch.export.export(Rotated(), (torch.rand(3, 2),))
    of_complex = [
        node
        for node in traced.graph.nodes
        if node.target is torch.ops.aten.unsqueeze.default and node.meta["val"].is_complex()
    ]
    assert not of_complex
