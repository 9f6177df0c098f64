"""Every kernel against PyTorch in float64, on fresh random inputs and on the awkward ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from benchmarks.gpu.reference import Gating, dispatch, gating, ulps

__all__ = ["Kernels", "Verdict", "check", "gatings"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOKENS = (0, 1, 2, 63, 64, 1000, 65_536)
PLAIN = ((1, 1), (3, 3), (8, 2), (60, 4), (64, 6), (100, 8), (128, 8), (160, 6), (256, 8), (257, 2),
         (384, 8), (256, 32), (1024, 32))  # fmt: skip
# num_experts, k, groups, top_groups, group_top
GROUPED = ((256, 8, 8, 4, 2), (160, 6, 8, 3, 1), (64, 6, 1, 1, 1), (256, 8, 1, 1, 1),
           (24, 3, 3, 2, 2), (60, 4, 5, 2, 3), (1024, 32, 32, 4, 5))  # fmt: skip


class Kernels(Protocol):
    """Gating and dispatch, however they are run."""

    name: str

    def gating(
        self, g: Gating, logits: torch.Tensor, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def dispatch(self, ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, ...]: ...


@dataclass
class Verdict:
    """What was seen over all cases.

    Attributes:
        cases: How many calls were compared.
        ulps: The largest distance of a weight, in float32 numbers.
        wrong: What differed, a line each.
    """

    cases: int = 0
    ulps: int = 0
    wrong: list[str] = field(default_factory=list)


def gatings() -> Iterator[Gating]:
    """Every kind of gating."""
    for (experts, k), normalize in itertools.product(PLAIN, (1, 0)):
        yield Gating(experts, k, normalize, 2.5)
    for sizes, sigmoid, normalize in itertools.product(GROUPED, (1, 0), (1, 0)):
        experts, k, *groups = sizes
        yield Gating(experts, k, normalize, 1.5, sigmoid, *groups, grouped=1)


def check(kernels: Kernels, device: str, *, most: int, seed: int, every: int = 1) -> Verdict:
    """Run the cases of at most so many tokens, of every so many kinds of gating."""
    verdict = Verdict()
    generator = torch.Generator(device=device).manual_seed(seed)
    kinds = list(gatings())[::every]
    for g, dtype, tokens in itertools.product(kinds, DTYPES, TOKENS):
        # Sorting a million rows of 1,024 in float64 is the reference's time, not the kernels'.
        if tokens <= most and tokens * g.num_experts <= 1 << 24:
            logits = torch.randn(tokens, g.num_experts, generator=generator, device=device) * 3
            _compare(verdict, kernels, g, logits.to(dtype), generator)
    for g, dtype in itertools.product(kinds, DTYPES):
        _compare(verdict, kernels, g, _awkward(g.num_experts, device).to(dtype), generator)
    return verdict


def _awkward(experts: int, device: str) -> torch.Tensor:
    """Ties, zeros of both signs, infinities, NaN, and numbers whose exponentials underflow."""
    numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        60.0,
        -95.0,
        -1000.0,
        float("inf"),
        float("-inf"),
        float("nan"),
    ]
    pool = torch.tensor(numbers, device=device)
    generator = torch.Generator(device=device).manual_seed(experts)
    some = [pool[: 2 + places] for places in range(len(numbers) - 1)]
    rows = [
        few[torch.randint(len(few), (20, experts), generator=generator, device=device)]
        for few in some
    ]
    equal = pool[:, None].expand(len(numbers), experts)
    return torch.cat([*rows, equal])


def _compare(
    verdict: Verdict, kernels: Kernels, g: Gating, logits: torch.Tensor, generator: torch.Generator
) -> None:
    bias = None
    if g.grouped:
        bias = torch.randn(g.num_experts, generator=generator, device=logits.device) / 4
    # On the host where that is quick: then only our kernels run under a sanitizer.
    place = "cpu" if logits.numel() < 1 << 20 else logits.device
    weights, ids = gating(g, logits.to(place), None if bias is None else bias.to(place))
    raw = kernels.gating(g, logits, bias)
    found, chosen = (each.to(place) for each in raw)
    where = f"{kernels.name}: {g}, {logits.dtype}, {len(logits)} tokens"
    verdict.cases += 1
    if not torch.equal(chosen, ids):
        verdict.wrong.append(f"ids of {where}")
        return
    if torch.equal(torch.isnan(found), torch.isnan(weights)):
        verdict.ulps = max(verdict.ulps, ulps(found, weights))
    else:
        verdict.wrong.append(f"NaN in weights of {where}")
    parts = [each.to(place) for each in kernels.dispatch(raw[1], g.num_experts)]
    wanted = dispatch(ids, g.num_experts)
    names = ("token_of_row", "row_of_slot", "offsets", "active")
    for name, left, right in zip(names, parts, wanted, strict=True):
        if not torch.equal(left.to(right.dtype), right):
            verdict.wrong.append(f"{name} of {where}")
