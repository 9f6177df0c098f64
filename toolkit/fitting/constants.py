"""Constant weights by maximum likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from toolkit.fitting.rows import Objective, Rows

__all__ = ["fit_constants"]

_STEPS = 2000
_STILL = 1e-10


def fit_constants(objective: Objective, rows: Sequence[Rows], members: int) -> torch.Tensor:
    """Weights [M] float64 that make the labels most likely; both problems are convex.

    linear: expectation maximisation (Dempster, Laird and Rubin 1977), which keeps their sum at 1.
    log_linear: L-BFGS on the weights, which are not negative and need not sum to 1.
    """
    if objective.combine == "linear":
        return _mixture(torch.cat([part.label_logs for part in rows]), members)
    return _product(objective, rows, members)


def _mixture(label_logs: torch.Tensor, members: int) -> torch.Tensor:
    # A label that every member excludes says nothing about the weights.
    possible = label_logs[(label_logs > -torch.inf).any(-1)]
    weights = torch.full((members,), 1 / members, dtype=torch.float64)
    for _ in range(_STEPS if len(possible) else 0):
        shares = torch.softmax(possible + weights.log(), -1).mean(0)
        moved = float((shares - weights).abs().max())
        weights = shares
        if moved < _STILL:
            break
    return weights


def _product(objective: Objective, rows: Sequence[Rows], members: int) -> torch.Tensor:
    # Squares are not negative, and reach 0.
    root = torch.full((members,), (1 / members) ** 0.5, dtype=torch.float64, requires_grad=True)
    count = sum(len(part.labels) for part in rows)
    optimiser = torch.optim.LBFGS([root], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        total = 0.0
        for part in rows:
            logs = root.square().clamp(min=1e-300).log().expand(len(part.labels), members)
            mean = objective.losses(part, logs).sum() / count
            mean.backward()  # type: ignore[no-untyped-call]
            total += float(mean.detach())
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return root.detach().square()
