"""Distributions made small: the most likely classes, and one bucket for all others.

Of every row the classes in falling order of probability are kept, at most ``top_k``, until their
mass reaches ``top_p``. Classes of probability 0 are never kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.distill.types import Targets
from toolkit.errors import RecipeError

__all__ = ["Compression", "compress", "rest_of"]


@dataclass(frozen=True)
class Compression:
    """How much is kept of a distribution.

    Attributes:
        top_k: Most classes of a row.
        top_p: The mass that suffices; 1 keeps ``top_k`` always.
        temperature: T of the distribution that is kept.
        dtype: Of the kept log probabilities on disk: ``float32`` or ``float16``. What is left over
            is computed after rounding, so that a row always sums to 1.
    """

    top_k: int = 64
    top_p: float = 1.0
    temperature: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise RecipeError(f"top_k is {self.top_k}, wanted at least 1")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p is {self.top_p}, wanted above 0 and at most 1")
        if not self.temperature > 0:
            raise RecipeError(f"the temperature is {self.temperature}, wanted above 0")
        if self.dtype not in {"float32", "float16"}:
            raise RecipeError(f"targets are kept in float32 or float16, not {self.dtype}")


def compress(
    targets: Targets,
    top_k: int = 64,
    top_p: float = 1.0,
    temperature: float = 1.0,
    dtype: str = "float32",
) -> Targets:
    """The targets with ``ids``, ``kept`` and ``rest`` in place of ``log_probs``.

    Raises:
        RecipeError: If they hold no distribution.
    """
    options = Compression(top_k, top_p, temperature, dtype)
    if targets.log_probs is None:
        raise RecipeError(
            "only a distribution can be compressed, and the teachers give none",
            hint="targets mixture and mean_of_logits are distributions; mean_of_kls needs the "
            "teachers themselves (with forward_kl and T = 1 the mixture has the same gradient)",
        )
    logs = targets.log_probs
    if targets.temperature != temperature:
        logs = torch.log_softmax(logs * (targets.temperature / temperature), -1)
    kept, ids = logs.topk(min(options.top_k, logs.shape[-1]), dim=-1)
    if options.top_p < 1:
        # a class is kept if what stands before it does not suffice; the first always is
        before = kept.exp().cumsum(-1) - kept.exp()
        kept = kept.masked_fill(before >= options.top_p, -torch.inf)
        longest = int((~kept.isneginf()).sum(-1).max()) if len(kept) else 1
        kept, ids = kept[:, : max(longest, 1)], ids[:, : max(longest, 1)]
    if dtype == "float16":
        kept = kept.half().to(logs.dtype)
    # an empty place repeats the row's first class, which is always kept
    ids = torch.where(kept.isneginf(), ids[:, :1], ids)
    rest = rest_of(logs, ids, kept)
    return replace(targets, log_probs=None, ids=ids, kept=kept, rest=rest, temperature=temperature)


def rest_of(logs: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
    """The logarithm of what kept log probabilities leave over, [N].

    Summed over the classes that were left out where that agrees with what was kept, so that it is
    exact however small; computed as 1 minus the rest where rounding moved what was kept.
    """
    others = logs.scatter(-1, ids, -torch.inf)
    none = others.isneginf().all(-1)
    left = others.masked_fill(none.unsqueeze(-1), 0.0).logsumexp(-1).masked_fill(none, -torch.inf)
    total = torch.logaddexp(kept.logsumexp(-1), left).abs()
    exact = total <= 64 * torch.finfo(logs.dtype).eps
    rounded = torch.log1p(-kept.exp().sum(-1).clamp(max=1.0))
    return torch.where(exact, left, rounded)
