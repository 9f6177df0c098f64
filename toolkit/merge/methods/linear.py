"""Weighted averages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.merge.kernels import weighted_sum
from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import Operands

__all__ = ["Fisher", "Linear", "normalized"]


def normalized(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Weights divided by their sum, in float64."""
    total = float(np.sum(np.array(weights, np.float64)))
    return tuple(weight / total for weight in weights)


@dataclass(frozen=True)
class Linear:
    """``sum_i w_i theta_i``: checkpoint averaging, uniform soups, WiSE-FT, scaled copies.

    Model soups (Wortsman et al. 2022, arXiv:2203.05482) have ``w_i = 1/n``; WiSE-FT (Wortsman et
    al. 2022, arXiv:2109.01903) has ``(1 - alpha, alpha)`` on base and fine-tune.

    mergekit adds up in the computation dtype and divides afterwards; here weights are divided by
    their sum first, products are added in float64, and the result is rounded once.

    Attributes:
        weights: One per model, applied as they are.
    """

    weights: tuple[float, ...]
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor."""
        weights = np.array(self.weights, np.float64)
        for start, rows in operands.chunks():
            out = operands.buffer(rows.shape[1])
            weighted_sum(rows, weights, out)
            operands.emit(start, out)
        return {}


@dataclass(frozen=True)
class Fisher:
    """``sum_i w_i F_i theta_i / sum_i w_i F_i`` per element.

    Matena & Raffel 2021, arXiv:2111.09832. ``F_i`` is the diagonal of model i's Fisher
    information. Where all of them are 0 the weighted average is taken. Operands are the models,
    then their Fisher diagonals. mergekit has no such method.

    Attributes:
        weights: One per model, a factor on its Fisher diagonal.
        floor: Added to every Fisher value, so that elements no model cares about are averaged.
    """

    weights: tuple[float, ...]
    floor: float = 1e-10
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor."""
        count = len(self.weights)
        weights = np.array(self.weights, np.float64)[:, None]
        for start, rows in operands.chunks():
            wide = operands.widened(rows)
            importance = weights * (wide[count:] + self.floor)
            total = (importance * wide[:count]).sum(0)
            operands.emit_rounded(start, total / importance.sum(0))
        return {}
