"""Zeros left out of storage: every bit comes back, and damage is found."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import CheckpointError
from toolkit.sparse import PARTS, compress, compressed_bytes, restore

KINDS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.float8_e4m3fn,
]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    kind=st.sampled_from(KINDS),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_every_bit_comes_back(sizes, kind, zeros, seed):
    draw = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (*sizes, torch.empty(0, dtype=kind).element_size()), generator=draw)
    raw[torch.rand(sizes, generator=draw) < zeros] = 0
    tensor = raw.to(torch.uint8).view(kind).reshape(sizes)  # NaN, infinities and -0.0 among them
    parts = compress(tensor)
    assert tuple(parts) == PARTS
    assert sum(part.nbytes for part in parts.values()) == compressed_bytes(tensor)
    found = restore("w", parts)
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert bits(found) == bits(tensor)


def test_the_layout_is_that_of_sparse_bitmask():
    """By hand: bit c of a byte, least significant first, is place c; offsets count values."""
    parts = compress(torch.tensor([[0.0, 2, 0, 3, 0, 0, 0, 0, 0, 4], [0.0] * 10, [1.0] + [0] * 9]))
    assert parts["shape"].tolist() == [3, 10]
    assert parts["compressed"].tolist() == [2, 3, 4, 1]
    assert parts["bitmask"].tolist() == [[0b1010, 0b10], [0, 0], [1, 0]]
    assert parts["row_offsets"].tolist() == [0, 3, 3]


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("shape", torch.tensor([3, 9]), "bitmask"),
        ("shape", torch.tensor([], dtype=torch.int64), "shape"),
        ("shape", torch.tensor([3, -1]), "shape"),
        ("bitmask", torch.zeros(2, 2, dtype=torch.uint8), "bitmask"),
        ("bitmask", torch.zeros(2, 1, dtype=torch.int8), "bitmask"),
        ("bitmask", torch.zeros(2, 1, dtype=torch.uint8), "0 values"),
        ("compressed", torch.ones(3), "2 values"),
        ("compressed", torch.ones(2, 1), "2 values"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(part, value, said):
    parts = compress(torch.tensor([[0.0, 2, 0], [0, 0, 1]])) | {part: value}
    with pytest.raises(CheckpointError, match=said):
        restore("w", parts)
