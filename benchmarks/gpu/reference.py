"""What gating and dispatch are, in PyTorch: float64 where the kernels round once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

__all__ = ["Gating", "dispatch", "gating", "ulps"]

# What experts of other groups are worth: the lowest finite float32.
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Gating:
    """The attributes of an operator of gating; ``grouped`` says which operator."""

    num_experts: int
    k: int
    normalize: int = 1
    scale: float = 1.0
    sigmoid: int = 1
    groups: int = 1
    top_groups: int = 1
    group_top: int = 1
    grouped: int = 0

    def with_(self, **changes: int | float) -> Gating:
        return replace(self, **changes)


def gating(
    g: Gating, logits: torch.Tensor, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [T, k] float32 and ids [T, k] int64 of logits [T, E]."""
    z = logits.float()
    if not g.grouped:
        ids = _first(z, g.k)
        best = z.double().gather(1, ids)
        below = (best - best[:, :1]).exp()
        over = z.double() if not g.normalize else best
        return (g.scale * below / (over - best[:, :1]).exp().sum(1, keepdim=True)).float(), ids
    scores = z.double().sigmoid() if g.sigmoid else z.double().softmax(1)
    scores = torch.where(scores < torch.finfo(torch.float32).tiny, 0.0, scores)
    # Experts are chosen among float32, as the contract's body has it.
    ids = _first(_within_groups(g, scores.float() + bias.float()), g.k)
    chosen = scores.gather(1, ids)
    total = chosen.sum(1, keepdim=True) + 1e-20 if g.normalize else 1.0
    return (g.scale * chosen / total).float(), ids


def _first(values: torch.Tensor, count: int) -> torch.Tensor:
    """The places of the largest, ties to the lowest place; NaN is larger than any number."""
    return torch.sort(values, dim=1, descending=True, stable=True).indices[:, :count]


def _within_groups(g: Gating, biased: torch.Tensor) -> torch.Tensor:
    if g.groups == 1:
        return biased
    tokens = len(biased)
    members = biased.reshape(tokens, g.groups, g.num_experts // g.groups)
    best = torch.sort(members, dim=-1, descending=True, stable=True).values[..., : g.group_top]
    worth = best[..., 0]
    for place in range(1, g.group_top):
        worth = worth + best[..., place]
    kept = torch.zeros(tokens, g.groups, dtype=torch.bool, device=biased.device)
    kept.scatter_(1, _first(worth, g.top_groups), True)
    return torch.where(kept[..., None], members, LOWEST).reshape(biased.shape)


def dispatch(ids: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, ...]:
    """token_of_row, row_of_slot, offsets and active of ids [T, k]."""
    slot_of_row = torch.sort(ids.flatten(), stable=True).indices
    row_of_slot = torch.empty_like(slot_of_row)
    row_of_slot[slot_of_row] = torch.arange(ids.numel(), device=ids.device)
    counts = torch.bincount(ids.flatten(), minlength=num_experts)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device=ids.device), counts.cumsum(0)])
    return slot_of_row // ids.shape[1], row_of_slot, offsets, counts > 0


def ulps(found: torch.Tensor, wanted: torch.Tensor) -> int:
    """How many float32 lie between two tensors, at most; NaN equals NaN alone."""
    nan = torch.isnan(wanted)
    assert torch.equal(torch.isnan(found), nan)
    return int((_places(found)[~nan] - _places(wanted)[~nan]).abs().max()) if (~nan).any() else 0


def _places(x: torch.Tensor) -> torch.Tensor:
    bits = x.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
