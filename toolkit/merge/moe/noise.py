"""Noise that makes experts of one model differ, so that training can tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.merge.kernels.philox import key
from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import Operands

__all__ = ["Noisy"]


@dataclass(frozen=True)
class Noisy:
    """``(theta + noise * n) * scale`` with ``n`` standard normal, drawn per element.

    Attributes:
        noise: Standard deviation of the noise.
        scale: Factor on the sum.
        seed: Of the draws, together with the output's name, so that experts differ.
    """

    noise: float
    scale: float
    seed: int
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor; elements are drawn in order, whatever the chunks."""
        generator = np.random.default_rng(key(self.seed, "noise", operands.name))
        for start, rows in operands.chunks():
            values = operands.widened(rows)[0]
            values += self.noise * generator.standard_normal(values.size)
            operands.emit_rounded(start, values * self.scale)
        return {}
