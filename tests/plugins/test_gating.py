"""The kernels' gating, compiled for the host, against PyTorch in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.reference import Gating, gating, ulps
from tests.plugins import host

TYPES = [torch.float32, torch.float16, torch.bfloat16]
# Every number of lanes, sizes that are no power of two, k = E, and what only the general way takes.
PLAIN = [(1, 1), (3, 3), (8, 2), (8, 8), (60, 4), (64, 6), (100, 8), (128, 8), (160, 6), (256, 8),
         (257, 2), (256, 9), (384, 32), (1024, 32)]  # fmt: skip
# num_experts, k, groups, top_groups, group_top: DeepSeek-V3, DeepSeek-V2, ...
GROUPED = [
    (256, 8, 8, 4, 2), (160, 6, 8, 3, 1), (64, 6, 1, 1, 1), (16, 4, 2, 1, 2), (24, 3, 3, 2, 2),
    (60, 4, 5, 2, 3), (12, 12, 4, 4, 3), (1024, 32, 32, 4, 5), (7, 2, 7, 3, 1),
]  # fmt: skip


def ways(lib, g: Gating) -> set[int]:
    """The fast path, where there is one, and the general."""
    return {host.path(lib, g), 2}


def assert_agrees(lib, g, logits, bias=None):
    """The same ids, and weights that are the float64 formula's or a neighbour."""
    weights, ids = gating(g, logits, bias)
    for way in ways(lib, g):
        found, chosen = host.gating(lib, g, logits, bias, way)
        assert torch.equal(chosen, ids), f"way {way}"
        assert ulps(found, weights) <= 1, f"way {way}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("experts", "k"), PLAIN)
def test_plain_gating_is_what_pytorch_computes_in_float64(lib, dtype, experts, k):
    generator = torch.Generator().manual_seed(experts * 100 + k)
    for normalize in (1, 0):
        for spread in (1, 30):
            logits = (torch.randn(50, experts, generator=generator) * spread).to(dtype)
            assert_agrees(lib, Gating(experts, k, normalize, scale=2.5), logits)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("sizes", GROUPED, ids=str)
def test_grouped_gating_is_what_pytorch_computes_in_float64(lib, dtype, sizes):
    experts, k, groups, top_groups, group_top = sizes
    generator = torch.Generator().manual_seed(experts)
    bias = torch.randn(experts, generator=generator) / 4
    for sigmoid, normalize in [(1, 1), (1, 0), (0, 1), (0, 0)]:
        g = Gating(experts, k, normalize, 1.5, sigmoid, groups, top_groups, group_top, 1)
        logits = (torch.randn(40, experts, generator=generator) * 3).to(dtype)
        assert_agrees(lib, g, logits, bias)
        assert_agrees(lib, g, logits, bias.to(dtype))


def test_the_fast_paths_take_what_they_are_for(lib):
    assert host.path(lib, Gating(256, 8)) == 0
    assert host.path(lib, Gating(256, 8, groups=8, top_groups=4, group_top=2, grouped=1)) == 1
    assert host.path(lib, Gating(160, 6, groups=8, top_groups=3, grouped=1)) == 2
    assert host.path(lib, Gating(257, 8)) == host.path(lib, Gating(256, 9)) == 2


NUMBERS = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-40, 60000.0]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_infinities_nan_and_ties_are_those_of_pytorch(lib, dtype):
    rows = [[first, second, 1.0, 1.0, -math.inf] for first in NUMBERS for second in NUMBERS]
    rows += [[number] * 5 for number in NUMBERS]
    logits = torch.tensor(rows).to(dtype)
    bias = torch.tensor([0.0, 0.5, -0.0, math.inf, -math.inf])
    for k in (1, 2, 5):
        for normalize in (1, 0):
            assert_agrees(lib, Gating(5, k, normalize), logits)
            for sigmoid in (1, 0):
                g = Gating(5, k, normalize, sigmoid=sigmoid, grouped=1)
                assert_agrees(lib, g, logits, torch.zeros(5))
                assert_agrees(lib, g, logits, bias)


@pytest.mark.parametrize("tokens", [0, 1])
def test_no_token_and_one_token(lib, tokens):
    assert_agrees(lib, Gating(6, 2), torch.rand(tokens, 6))
    assert_agrees(lib, Gating(6, 2, grouped=1), torch.rand(tokens, 6), torch.zeros(6))


def test_shares_that_underflow_are_right_to_the_last_subnormal(lib):
    logits = torch.tensor([[0.0, -87.5, -95.0, -103.2, -104.5, -1000.0]])
    assert_agrees(lib, Gating(6, 6), logits)


@st.composite
def tables(draw):
    """Logits of any bits, in which ties are frequent."""
    experts = draw(st.sampled_from([8, 16, 24, 40, 64, 72, 129]))
    number = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, 2.0]))
    pool = torch.tensor(draw(st.lists(number, min_size=1, max_size=8)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    places = torch.randint(len(pool), (20, experts), generator=generator)
    return pool[places].to(draw(st.sampled_from(TYPES)))


@given(logits=tables(), k=st.integers(1, 8), normalize=st.integers(0, 1), size=st.integers(0, 2))
def test_the_fast_path_and_the_general_one_agree_on_anything(lib, logits, k, normalize, size):
    experts = logits.shape[1]
    g = Gating(experts, k, normalize)
    assert_same(host.gating(lib, g, logits), host.gating(lib, g, logits, way=2))
    members = 8 << size
    groups = experts // members if experts % members == 0 else 1
    for sigmoid in (1, 0):
        g = Gating(experts, k, normalize, 1.0, sigmoid, groups, 1, 2, 1)
        assert host.path(lib, g) == 1
        bias = logits[0].flip(0)
        assert_same(host.gating(lib, g, logits, bias), host.gating(lib, g, logits, bias, 2))


def assert_same(left, right):
    assert torch.equal(left[1], right[1])
    nan = torch.isnan(left[0])
    assert torch.equal(nan, torch.isnan(right[0]))
    # Sums are taken in another order, at 36 bits; rounding to 24 hides most of that.
    assert ulps(left[0], right[0]) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 0}, {"k": 7}, {"num_experts": 1025}, {"num_experts": 0},
        {"groups": 4, "grouped": 1}, {"groups": 0, "grouped": 1},
        {"groups": 2, "top_groups": 3, "grouped": 1}, {"groups": 2, "group_top": 4, "grouped": 1},
    ],
    ids=str,
)  # fmt: skip
def test_attributes_out_of_their_range_are_refused(lib, changes):
    assert host.path(lib, Gating(6, 2)) == 0
    assert host.path(lib, Gating(6, 2).with_(**changes)) == -1
