"""Noisy top-k gating and the losses that keep its experts busy (Shazeer et al. 2017).

"Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
arXiv:1701.06538; sections and equations below are that paper's. T tokens, E experts, k chosen.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

__all__ = ["keep_top_k", "load", "noisy", "squared_variation", "within_capacity"]

# Where the mean is 0, so is every value, and variation of nothing is nothing.
_TINY = 1e-10


def noisy(clean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """H(x) = x W_g + StandardNormal() * Softplus(x W_noise), equation 4.

    Args:
        clean: x W_g, [T, E].
        deviation: Softplus(x W_noise), [T, E].

    Returns:
        [T, E]. The noise comes from PyTorch's default generator.
    """
    return clean + torch.randn_like(clean) * deviation


def keep_top_k(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """G(x) = Softmax(KeepTopK(H(x), k)), equations 3 and 5, without its zeros.

    Ties go to the lowest expert id.

    Args:
        logits: H(x), [T, E].
        k: How many experts a token is given.

    Returns:
        Weights [T, k], each row falling and of sum 1, and the experts' ids, int64 [T, k].
    """
    if torch.compiler.is_exporting():
        # ONNX defines ties of TopK as they are here; PyTorch leaves them open.
        best, ids = logits.topk(k, dim=-1)
    else:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        best, ids = ordered[:, :k], order[:, :k]
    return best.softmax(-1), ids


def load(
    clean: torch.Tensor, deviation: torch.Tensor, logits: torch.Tensor, k: int
) -> torch.Tensor:
    """Load(X)_i = sum_x P(x, i), a smooth count of an expert's tokens (appendix A, equations 8-10).

    P(x, i) is the probability that expert i is chosen when its own noise is drawn again:
    ``Phi((clean_i - kth_excluding(H(x), k, i)) / deviation_i)``, where kth_excluding is the k-th
    largest component of H(x) without component i.

    Args:
        clean: x W_g, [T, E].
        deviation: Softplus(x W_noise), [T, E].
        logits: The H(x) that was drawn, [T, E].
        k: How many experts a token is given.

    Returns:
        [E].
    """
    if k == logits.shape[-1]:
        return torch.full_like(logits[0], len(logits))
    best = logits.topk(k + 1, dim=-1).values
    kth, next_one = best[:, k - 1 : k], best[:, k:]
    # Without itself, one of the best k leaves its place to the next.
    threshold = torch.where(logits >= kth, next_one, kth)
    chosen: torch.Tensor = torch.special.ndtr((clean - threshold) / deviation)
    return chosen.sum(0)


def squared_variation(values: torch.Tensor) -> torch.Tensor:
    """CV(values)^2, the variance over the squared mean: 0 where all are equal (equations 7, 11).

    Of an expert's importance (the sum of its weights, equation 6) or load; [E] to a scalar.
    """
    return values.var(correction=0) / (values.mean().square() + _TINY)


def within_capacity(ids: torch.Tensor, experts: int, factor: float) -> torch.Tensor:
    """Which slots their expert has room for, when each takes ceil(factor * T * k / E) of them.

    Room is given in the order of tokens, and of choices within a token.

    Args:
        ids: int64 [T, k].
        experts: E.
        factor: 1 is room for an even load.

    Returns:
        bool [T, k].
    """
    flat = ids.reshape(-1)
    hot = functional.one_hot(flat, experts)
    place = hot.cumsum(0).gather(1, flat[:, None])
    return (place <= math.ceil(factor * flat.numel() / experts)).view_as(ids)
