"""Which weights go: magnitude, Wanda, and second order with the rest moved to make up for it.

Weights are [out, in], and a layer computes ``x @ W.T``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from toolkit.sparse.patterns import Pattern

__all__ = ["Moments", "magnitude", "second_order", "wanda"]

_BLOCK = 128  # columns whose updates of the rest are done together


@dataclass
class Moments:
    """What the inputs of a layer were, summed over calibration.

    Attributes:
        kind: ``norms`` keeps sums of squares [in], ``gram`` the matrix ``X.T @ X`` [in, in].
        rows: How many rows were seen.
        total: The sum; None before the first row.
    """

    kind: Literal["norms", "gram"]
    rows: int = 0
    total: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Count inputs [.., in]."""
        rows = x.detach().reshape(-1, x.shape[-1])
        rows = rows.double() if rows.shape[-1] <= 2048 else rows.float()
        found = rows.square().sum(dim=0) if self.kind == "norms" else rows.T @ rows
        self.total = found if self.total is None else self.total.add_(found)
        self.rows += len(rows)

    @property
    def norms(self) -> Tensor:
        """The Euclidean norm of every input over all rows, [in]."""
        assert self.total is not None
        return (self.total if self.kind == "norms" else self.total.diagonal()).sqrt()


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """The weights with the largest ``|W|`` of every group."""
    return weight.masked_fill(~pattern.keep(weight.abs()), 0)


def wanda(weight: Tensor, norms: Tensor, pattern: Pattern) -> Tensor:
    """The weights with the largest ``|W_ij| * ||X_j||`` of every group (Sun et al. 2024).

    Args:
        weight: [out, in].
        norms: Of the inputs, [in].
        pattern: What to keep.
    """
    return weight.masked_fill(~pattern.keep(weight.abs() * norms.to(weight.dtype)), 0)


def second_order(weight: Tensor, gram: Tensor, pattern: Pattern, damp: float = 0.01) -> Tensor:
    """Optimal brain surgeon on blocks, as SparseGPT (Frantar & Alistarh 2023) with groups.

    From the first group to the last, with H the Hessian of the columns that are still to come,
    those q of a group go that cost least together, and all columns from the group on make up:

        cost(q) = w_q inv(inv(H)_qq) w_q / 2,    w -= w_q inv(inv(H)_qq) inv(H)_q:

    Within a group the choice and the update are exact; SparseGPT ranks weights one by one instead.
    Columns before the group stay as they are. Each row chooses for itself.

    Args:
        weight: [out, in].
        gram: ``X.T @ X`` over calibration, [in, in].
        pattern: What to keep.
        damp: Added to the diagonal, as a share of its mean.

    Returns:
        The new weights, in the type of ``weight``.
    """
    kind = torch.float64 if gram.dtype == torch.float64 else torch.float32
    w, hessian = weight.to(kind).clone(), gram.to(kind).clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    w[:, dead] = 0
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    # With U'U = inv(H), inv(H_i:,i:) = U_i:,i:' U_i:,i: for every i.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    width = w.shape[1]
    step = max(_BLOCK // pattern.m, 1) * pattern.m
    for start in range(0, width, step):
        end = min(start + step, width)
        factors = torch.zeros(len(w), end - start, dtype=kind)
        for left in range(start, end, pattern.m):
            right = left + pattern.m
            block = upper[left:right, left:end]
            found, pruned = _group(w[:, left:right], upper[left:right, left:right], pattern)
            factors[:, left - start : right - start] = found
            w[:, left:end] -= found @ block
            w[:, left:right][pruned] = 0
        w[:, end:] -= factors @ upper[start:end, end:]
    return w.to(weight.dtype)


def _group(w: Tensor, upper: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """What each row takes away, [out, m] in units of rows of ``upper``, and what goes, [out, m]."""
    inverse = upper.T @ upper
    choices = list(combinations(range(pattern.m), pattern.m - pattern.n))
    costs, answers = [], []
    for choice in choices:
        q = torch.tensor(choice)
        solved = torch.linalg.solve(inverse[q][:, q], w[:, q].T).T  # [out, m - n]
        costs.append((solved * w[:, q]).sum(dim=1))
        answers.append(solved)
    best = torch.stack(costs, dim=1).argmin(dim=1)
    factors, pruned = torch.zeros_like(w), torch.zeros_like(w, dtype=torch.bool)
    for number, choice in enumerate(choices):
        rows, q = best == number, torch.tensor(choice)
        # inv(H)_q: = (U_g,q)' U_g,: where g are the rows of this group.
        factors[rows] = answers[number][rows] @ upper[:, q].T
        pruned[rows.nonzero(), q] = True
    return factors, pruned
