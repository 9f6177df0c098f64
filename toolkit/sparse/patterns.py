"""N:M patterns: of every M neighbours along the reduction axis at most N are not zero."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from toolkit.errors import MergeError

__all__ = ["Pattern", "PatternCheck", "check_pattern", "reduction_axis"]

# These keep weights as [in, out] (transformers' Conv1D).
_TURNED = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}


@dataclass(frozen=True)
class Pattern:
    """At most ``n`` of every ``m`` neighbours are kept.

    Sparse tensor cores take 2:4 along the axis that a product sums over (Mishra et al. 2021):
    the last one of a PyTorch ``Linear``'s weight [out, in].
    """

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``2:4``.

        Raises:
            MergeError: If it is no such pattern.
        """
        match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text.strip())
        n, m = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 0 < n < m:
            raise MergeError(
                f"the pattern is {text!r}, wanted N:M with 0 < N < M",
                hint="2:4 is what sparse tensor cores take",
            )
        return cls(n, m)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def fits(self, width: int) -> bool:
        """Whether an axis is made of whole groups."""
        return width % self.m == 0

    def keep(self, scores: Tensor) -> Tensor:
        """The mask, bool [.., in]: the ``n`` highest scores of every group, of equals the first."""
        groups = scores.reshape(*scores.shape[:-1], -1, self.m)
        order = torch.argsort(groups, dim=-1, descending=True, stable=True)
        mask = torch.zeros_like(groups, dtype=torch.bool)
        mask.scatter_(-1, order[..., : self.n], value=True)
        return mask.reshape(scores.shape)


def reduction_axis(config: Mapping[str, Any]) -> int:
    """The axis that products sum over: the last of [out, in], the first of GPT-2's [in, out].

    Args:
        config: The checkpoint's ``config.json``; empty for a single file.
    """
    return 0 if config.get("model_type") in _TURNED else -1


@dataclass(frozen=True)
class PatternCheck:
    """What a tensor's zeros are like.

    Attributes:
        zeros: Share of elements that are zero.
        holds: Share of groups with at most ``n`` elements that are not; 0 where the axis is not
            made of whole groups.
    """

    zeros: float
    holds: float


def check_pattern(
    weight: npt.NDArray[np.generic], pattern: Pattern, axis: int = -1
) -> PatternCheck:
    """Count zeros and groups along ``axis``; half-precision bits will do, -0 counts as zero."""
    found: npt.NDArray[Any] = weight
    if weight.dtype.kind == "u":  # bits of a float that numpy has no name for, sign first
        found = weight << np.ones((), weight.dtype)
    alive = np.moveaxis(np.asarray(found != 0), axis, -1)
    zeros = 1 - float(alive.mean()) if alive.size else 0.0
    if not alive.size or not pattern.fits(alive.shape[-1]):
        return PatternCheck(zeros, 0.0)
    counts = alive.reshape(*alive.shape[:-1], -1, pattern.m).sum(axis=-1)
    return PatternCheck(zeros, float((counts <= pattern.n).mean()))
