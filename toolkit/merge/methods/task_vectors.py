"""One core for all methods on task vectors: sparsify, agree on signs, rescale, add to the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.merge.kernels import combine, delta_sum, masked_mass
from toolkit.merge.methods.base import Findings
from toolkit.merge.methods.sparsify import Della, Masks, Sparsifier
from toolkit.merge.operands import Operands

__all__ = ["Rescale", "TaskVectors"]

Array = npt.NDArray[Any]
Rescale = Literal["none", "density", "l1"]


@dataclass(frozen=True)
class TaskVectors:
    """``theta_0 + lambda * consensus_i(w_i * r_i * sparsify(theta_i - theta_0))``.

    | method | sparsify | elect | normalize | rescale |
    |---|---|---|---|---|
    | task_arithmetic (Ilharco et al. 2022, arXiv:2212.04089) | nothing | no | no | no |
    | ties (Yadav et al. 2023, arXiv:2306.01708) | magnitude | yes | yes | no |
    | dare_linear, dare_ties (Yu et al. 2023, arXiv:2311.03099) | chance | ties | no | 1/density |
    | breadcrumbs(_ties) (arXiv:2312.06795) | magnitude, outliers | ties | no | no |
    | della (arXiv:2406.11617), della_linear | chance by rank | della | della | 1/p |

    Departures of mergekit, whose defaults of ``normalize`` these are: DARE and DELLA rescale to the
    L1 norm before trimming (``rescale_by: l1`` here); trimming and random draws are per tensor, as
    here, while the TIES paper trims over the whole model (``trim: model``).

    Attributes:
        weights: One per model.
        sparsifier: Which entries survive; None for all.
        elect: Whether entries against the elected sign are left out.
        normalize: Whether to divide by the weights of what took part.
        scale: The factor lambda.
        rescale: What makes up for the dropped entries: nothing, ``1/density`` of the drawing, or
            the L1 norm of the tensor before over after.
    """

    weights: tuple[float, ...]
    sparsifier: Sparsifier | None = None
    elect: bool = False
    normalize: bool = False
    scale: float = 1.0
    rescale: Rescale = "none"
    relative: bool = True

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor."""
        if self.sparsifier is None and not self.elect:
            return self._sum(operands)
        masks = self._masks(operands)
        factors = self._factors(operands, masks)
        if self.rescale == "l1":
            masks = self._masks(operands)  # quotas start again
        return self._combine(operands, masks, factors)

    def _sum(self, operands: Operands) -> Findings:
        """Without masks a weighted sum is enough."""
        weights = np.array((0.0, *self.weights))
        total = weights.sum()
        if self.normalize and abs(total) >= 1e-8:
            weights = weights / total
        weights = self.scale * weights
        for start, rows in operands.chunks():
            out = operands.buffer(rows.shape[1])
            delta_sum(rows, weights, out)
            operands.emit(start, out)
        return {}

    def _masks(self, operands: Operands) -> Masks:
        if self.sparsifier is None:
            return _keep_all
        return self.sparsifier.prepare(operands)

    def _filled(self, operands: Operands, masks: Masks) -> Any:
        """Chunks with their masks: (start, rows, masks)."""
        whole_rows = self.sparsifier is not None and self.sparsifier.whole_rows
        kind = np.float64 if isinstance(self.sparsifier, Della) else np.uint8
        for start, rows in operands.chunks(whole_rows=whole_rows):
            mask = operands.scratch.array("masks", (len(self.weights), rows.shape[1]), kind)
            masks(start, rows, mask)
            yield start, rows, mask

    def _factors(self, operands: Operands, masks: Masks) -> Array:
        if self.rescale == "density" and self.sparsifier is not None:
            return 1.0 / np.array(self.sparsifier.densities)
        if self.rescale == "l1":
            sums = np.zeros((len(self.weights), 2))
            for _, rows, mask in self._filled(operands, masks):
                for i in range(len(self.weights)):
                    masked_mass(rows[i + 1], rows[0], mask[i], sums[i])
            small = (sums < 1e-7).any(axis=1)
            return np.where(small, 1.0, sums[:, 0] / np.where(small, 1.0, sums[:, 1]))
        return np.ones(len(self.weights))

    def _combine(self, operands: Operands, masks: Masks, factors: Array) -> Findings:
        counts = np.zeros(2, np.int64)
        kept = np.zeros(len(self.weights), np.int64)
        weights = np.array(self.weights)
        for start, rows, mask in self._filled(operands, masks):
            out = operands.buffer(rows.shape[1])
            combine(
                rows, mask, weights, factors, self.elect, self.normalize, self.scale, out, counts
            )  # fmt: skip
            kept += np.count_nonzero(mask, axis=1)
            operands.emit(start, out)
        size = max(operands.size, 1)
        return {
            "kept": [int(k) / size for k in kept],
            "factors": [float(f) for f in factors],
            "sign_conflicts": int(counts[0]) / size,
            "removed_by_election": int(counts[1]),
        }


def _keep_all(_start: int, _rows: Array, masks: Array) -> None:
    masks[:] = 1
