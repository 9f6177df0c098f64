"""How far a student's distribution q is from a target p, row by row, on classes or on buckets.

    forward KL      KL(p || q) = sum_c p_c (log p_c - log q_c)
                    Hinton, Vinyals & Dean 2015 (arXiv:1503.02531): all that p does, q must cover
    reverse KL      KL(q || p); MiniLLM, Gu et al. 2023 (arXiv:2306.08543): q keeps to what p does
    Jensen-Shannon  generalised with beta = 1/2; Lin 1991
    generalised     JSD_beta = beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q
                    GKD, Agarwal et al. 2023 (arXiv:2306.13649); 0 < beta < 1. Divided by beta it
                    goes to the forward KL as beta goes to 0

A class to which p gives exactly 0 (padding of a vocabulary, a veto) adds nothing to the forward
KL. The reverse KL would be infinite there: it is that of q renormalised over the other classes.

A compressed target keeps some classes and one bucket for all others. The student's classes are put
into the same buckets, and then the same formulas hold. Every one of them is an f-divergence, so by
the data processing inequality the result is a lower bound of that over the classes. For the
forward KL what is lost is p_rest KL(p(. | rest) || q(. | rest)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "Formula",
    "bucketed",
    "divergence",
    "forward_kl",
    "generalised_jsd",
    "reverse_kl",
]

Divergence: TypeAlias = Literal["forward_kl", "reverse_kl", "jsd"]


class Formula(Protocol):
    """Log probabilities of target and student, [N, C] each, to their divergences [N]."""

    def __call__(self, target: Tensor, student: Tensor) -> Tensor:
        """In nats, not below 0 up to rounding."""


def forward_kl(target: Tensor, student: Tensor) -> Tensor:
    """KL(p || q) of log probabilities [N, C], as rows [N]; infinite where q is 0 and p is not."""
    return _weighted(target, target, student)


def reverse_kl(target: Tensor, student: Tensor) -> Tensor:
    """KL(q || p) of log probabilities [N, C], as rows [N], over the classes that p allows."""
    barred = target.isneginf()
    if bool(barred.any()):
        # finite in place of -inf: a softmax over a row of nothing else has no gradient
        allowed = student.masked_fill(barred, torch.finfo(student.dtype).min)
        student = torch.log_softmax(allowed, -1).masked_fill(barred, -torch.inf)
    return _weighted(student, student, target)


def generalised_jsd(target: Tensor, student: Tensor, beta: float = 0.5) -> Tensor:
    """JSD_beta of log probabilities [N, C], as rows [N]; at most the entropy of beta, in nats."""
    parts = torch.stack((target + math.log(beta), student + math.log1p(-beta)))
    nowhere = parts.isneginf().all(dim=0)
    mixture = parts.masked_fill(nowhere, 0.0).logsumexp(dim=0).masked_fill(nowhere, -torch.inf)
    towards = _weighted(target, target, mixture)
    return beta * towards + (1 - beta) * _weighted(student, student, mixture)


def _weighted(weights: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Sum of exp(weights) (first - second), where a weight of 0 counts for nothing."""
    silent = weights.isneginf()
    if not bool(silent.any()):
        return (weights.exp() * (first - second)).sum(-1)
    difference = first.masked_fill(silent, 0.0) - second.masked_fill(silent, 0.0)
    return (weights.exp() * difference).sum(-1)


DIVERGENCES: Mapping[Divergence, Formula] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": generalised_jsd,
}


def divergence(kind: Divergence, beta: float = 0.5) -> Formula:
    """The formula of a name; ``beta`` is that of ``jsd``."""
    if kind != "jsd":
        return DIVERGENCES[kind]

    def formula(target: Tensor, student: Tensor) -> Tensor:
        return generalised_jsd(target, student, beta)

    return formula


def bucketed(logits: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
    """The student's log probabilities of the kept classes and, last, of all others together.

    One pass over the classes, as a softmax takes.

    Args:
        logits: Of the student, [N, V].
        ids: The kept classes, int64 [N, K].
        kept: The target's log probabilities [N, K]; where it is -inf the place is empty, and its
            id one of the row's other kept classes.

    Returns:
        [N, K + 1]; -inf in empty places, and in the last where nothing is left.
    """
    empty = kept.isneginf()
    own = logits.gather(-1, ids)
    others = logits.scatter(-1, ids, -torch.inf)
    rest = others.logsumexp(-1, keepdim=True)
    none = rest.isneginf()
    if bool(none.any()):  # a logsumexp of nothing has no gradient
        rest = others.masked_fill(none, 0.0).logsumexp(-1, keepdim=True)
        rest = rest.masked_fill(none, -torch.inf)
    # an empty place repeats a class, so it must not count twice
    known = torch.cat((own.masked_fill(empty, -torch.inf), rest), dim=-1)
    return known - known.logsumexp(-1, keepdim=True)
