"""The meaning of a gate: weights that depend on the context, computed in PyTorch from its scores.

Like ``toolkit.runtime.ensemble`` a reference: it follows the definitions and shares no code with
the graphs that are proven against it. With scores s [..., M] and K the ``top_k`` members with the
largest scores, of equal ones the first,

    softmax     w_m = exp(s_m) / sum_{n in K} exp(s_n)   for m in K, else exactly 0
    softplus    w_m = log(1 + exp(s_m))                  for m in K, else exactly 0

    linear      sum_m w_m p_m: a mixture of experts (Jordan & Jacobs 1994)
    log_linear  log softmax(sum_m w_m z_m): a product of experts (Hinton 2002)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

__all__ = [
    "Activation",
    "GateRule",
    "interpolate_gated",
    "log_softmax_or_nothing",
    "log_weights",
    "near_ties",
]

Activation = Literal["softmax", "softplus"]

# Scores whose distance is within this many times the largest rounding error that was seen.
_SAFETY = 8.0
# and never less than this many units in the last place of float32.
_LEAST_ULPS = 16.0


@dataclass(frozen=True)
class GateRule:
    """How scores become weights.

    Attributes:
        output: The gate's output that holds the scores, [..., M].
        top_k: How many members of a row have a weight above 0; None for all.
        activation: ``softmax`` weights sum to 1; ``softplus`` weights (log-linear only) are free.
    """

    output: str
    top_k: int | None = None
    activation: Activation = "softmax"


def log_weights(scores: torch.Tensor, rule: GateRule) -> torch.Tensor:
    """The logarithms of the weights [..., M]; -inf for members outside the top k."""
    lost = ~_kept(scores, rule.top_k)
    if rule.activation == "softmax":
        return torch.log_softmax(scores.masked_fill(lost, -torch.inf), -1)
    # log softplus(s) = s + log(log1p(e^s) / e^s), and for s far below 0 that is s
    far = scores < -30
    near = functional.softplus(scores.masked_fill(far, 0.0)).log()
    return torch.where(far, scores, near).masked_fill(lost, -torch.inf)


def _kept(scores: torch.Tensor, top_k: int | None) -> torch.Tensor:
    if top_k is None:
        return torch.ones_like(scores, dtype=torch.bool)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order[..., :top_k], value=True)


def near_ties(
    scores: torch.Tensor, others: Sequence[torch.Tensor], top_k: int | None
) -> torch.Tensor | None:
    """Rows whose choice of members hangs on rounding, bool [...]; None where nothing is chosen.

    Args:
        scores: [..., M], exact.
        others: The same scores from runs in float32: how far apart they are is the rounding.
        top_k: How many are chosen.
    """
    if top_k is None or top_k >= scores.shape[-1]:
        return None
    exact = scores.double()
    ordered = exact.sort(dim=-1, descending=True).values
    margin = ordered[..., top_k - 1] - ordered[..., top_k]
    size = float(exact.abs().max()) if exact.numel() else 0.0
    moved = [float((other.double() - exact).abs().max()) for other in others if exact.numel()]
    rounding = _LEAST_ULPS * torch.finfo(torch.float32).eps * size
    return margin <= max(rounding, _SAFETY * max(moved, default=0.0))


def interpolate_gated(
    outputs: Sequence[torch.Tensor],
    weights: torch.Tensor,
    combine: Literal["linear", "log_linear"],
    space: Literal["logits", "probabilities", "values"],
) -> torch.Tensor:
    """Combine members' outputs [..., V] by logarithms of weights [rows..., M].

    The leading dimensions of the outputs are those of the weights; over what follows a row's
    weights are the same.
    """
    members = torch.stack(tuple(outputs))
    logs = _aligned(weights.to(members.dtype), members)
    silent = logs.isneginf()
    said = members.masked_fill(silent, 0.0)
    if space == "values" or (combine == "linear" and space == "probabilities"):
        return (logs.exp() * said).sum(dim=0)
    if combine == "linear":
        return (log_softmax_or_nothing(said) + logs).logsumexp(dim=0)
    spoken = said.log().masked_fill(silent, 0.0) if space == "probabilities" else said
    # a weight that underflows still vetoes: only a silent member does not
    product = (logs.exp() * spoken).masked_fill(spoken.isneginf(), -torch.inf).sum(dim=0)
    normalised = log_softmax_or_nothing(product)
    return normalised.exp() if space == "probabilities" else normalised


def _aligned(weights: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """[rows..., M] as [M, rows..., 1, ...], to broadcast against the members [M, ...]."""
    first = weights.movedim(-1, 0)
    return first.reshape(*first.shape, *[1] * (members.dim() - first.dim()))


def log_softmax_or_nothing(logits: torch.Tensor) -> torch.Tensor:
    """As PyTorch's, and -inf throughout where a row holds nothing else."""
    vetoed = logits.isneginf().all(dim=-1, keepdim=True)
    normalised = torch.log_softmax(logits.masked_fill(vetoed, 0.0), -1)
    return normalised.masked_fill(vetoed, -torch.inf)
