"""The members of a plan in PyTorch on a device: what an engine has to be faster than."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toolkit.artifacts import OnnxModel
from toolkit.pipeline import Plan

__all__ = ["contiguous", "eager"]

Feeds = Mapping[str, npt.NDArray[Any]]


def eager(plan: Plan, device: str, *, compiled: bool = False) -> Callable[[Feeds], torch.Tensor]:
    """Run every member and, where there are several, take the mixture of their distributions.

    Arrays come from the host and the result goes back to it, as with every other runtime here.

    Args:
        plan: One model, or an ensemble of models with constant weights.
        device: Where to run.
        compiled: Whether ``torch.compile`` has its way with each member.
    """
    members: list[tuple[Any, nn.Module, float]] = []
    weights = getattr(plan.root, "weights", (1.0,))
    for (_, leaf), weight in zip(plan.leaves(), weights, strict=True):
        assert not isinstance(leaf.origin, OnnxModel)
        module: Any = leaf.origin.load("float32").to(device).eval()
        members.append((leaf, torch.compile(module) if compiled else module, weight))
    alone = len(members) == 1

    def run(feeds: Feeds) -> torch.Tensor:
        with torch.inference_mode():
            mixed: torch.Tensor | None = None
            for leaf, module, weight in members:
                given = {
                    spec.name: torch.from_numpy(feeds[leaf.rename.get(spec.name, spec.name)])
                    for spec in leaf.inputs
                }
                logits = module(**{name: value.to(device) for name, value in given.items()})[0]
                part = logits if alone else weight * torch.softmax(logits.float(), dim=-1)
                mixed = part if mixed is None else mixed + part
            assert mixed is not None
            return (mixed if alone else mixed.log()).cpu()

    return run


def contiguous(feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
    """Arrays that PyTorch takes without a copy."""
    return {name: np.ascontiguousarray(array) for name, array in feeds.items()}
