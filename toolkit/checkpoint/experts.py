"""How many experts a configuration names, and how much of a checkpoint one token reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from toolkit.checkpoint.folder import Checkpoint

__all__ = ["ExpertCounts", "active_parameters", "expert_counts"]

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k", "num_experts_per_token")
# Shared experts, which every token is given, are named otherwise.
_NAMED = re.compile(r"(^|\.)experts\.")
_STACKED = 3  # axes of a tensor that holds a matrix for each expert


@dataclass(frozen=True)
class ExpertCounts:
    """Experts of a layer, and how many of them a token is given."""

    experts: int
    k: int


def expert_counts(config: Mapping[str, Any]) -> ExpertCounts | None:
    """What ``config.json`` says, itself or in a part such as ``text_config``; None if nothing."""
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        experts, k = _whole(part, _EXPERTS), _whole(part, _CHOSEN)
        if experts > 1 and k:
            return ExpertCounts(experts, k)
    return None


def _whole(part: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """The first of the keys that is there; of a list, one for each layer, the largest; or 0."""
    for key in keys:
        value = part.get(key)
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(one, int) for one in values):
            return int(max(values))
    return 0


def active_parameters(checkpoint: Checkpoint, counts: ExpertCounts) -> tuple[int, int]:
    """Elements of all tensors, and of those that one token is multiplied by.

    A token is given k of E experts of every layer, and everything that is no expert's.
    """
    total = sum(prod(shape) for _, shape in _shapes(checkpoint))
    experts = sum(
        prod(shape)
        for name, shape in _shapes(checkpoint)
        if _NAMED.search(name) or (len(shape) == _STACKED and shape[0] == counts.experts)
    )
    return total, total - experts + experts * counts.k // counts.experts


def _shapes(checkpoint: Checkpoint) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, (_, entry) in checkpoint.tensors.items():
        yield name, tuple(entry.shape)
