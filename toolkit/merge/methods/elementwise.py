"""Methods that decide element by element: nearswap, SCE, Arcee fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.merge.kernels.selection import LOWER, UPPER, kth_from_top
from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import Operands

__all__ = ["ArceeFusion", "Nearswap", "Sce"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Nearswap:
    """``theta_0 + min(1, t / |tau|) tau``: towards the other model by at most ``t`` per element.

    alchemonaut 2024 (QuartetAnemoi). As mergekit does it, in float64; its floor of 1e-6 on
    ``|tau|`` only matters where ``t`` is below 1e-6, and there is none here.

    Attributes:
        t: The largest step.
    """

    t: float
    relative: bool = True

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor."""
        swapped = 0
        for start, rows in operands.chunks():
            wide = operands.widened(rows)
            delta = wide[1] - wide[0]
            near = np.abs(delta) <= self.t
            swapped += int(np.count_nonzero(near))
            step = np.sign(delta) * self.t
            operands.emit_rounded(start, np.where(near, wide[1], wide[0] + step))
        return {"swapped": swapped / max(operands.size, 1)}


@dataclass(frozen=True)
class Sce:
    """Select, calculate, erase (Wan et al. 2024, FuseChat, arXiv:2408.07990).

    Select the ``select_topk`` share of positions (of those whose variance is not 0) where the
    task vectors vary most; weigh each model by the mean square of what is selected; erase entries
    against the sign of the sum; divide by the weights of what is left. mergekit weighs all models
    alike where the mean squares add up to less than 1e-6, which small fine-tunes do: that is
    ``min_square: 1e-6`` here.

    Attributes:
        select_topk: Share of positions, in (0, 1].
        min_square: Sum of the models' mean squares below which all weigh the same.
    """

    select_topk: float = 1.0
    min_square: float = 0.0
    relative: bool = True

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor: two passes to select, one to weigh, one to add."""
        bound, quota = self._threshold(operands)
        left, squares = quota, np.zeros(len(operands.tensors) - 1)
        for _, rows in operands.chunks():
            deltas, left = self._selected(operands, rows, bound, left)
            squares += np.square(deltas).sum(axis=1)
        total, size = squares.sum(), max(operands.size, 1)
        even = np.full(len(squares), 1 / len(squares))
        enough = total > 0 and total / size >= self.min_square
        weights = squares / total if enough else even
        left = quota
        for start, rows in operands.chunks():
            deltas, left = self._selected(operands, rows, bound, left)
            agrees = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1.0, -1.0)
            taken = weights[:, None] * agrees
            change = (deltas * taken).sum(0) / np.maximum(taken.sum(0), 1e-6)
            operands.emit_rounded(start, operands.widened(rows[:1])[0] + change)
        return {"weights": [float(w) for w in weights]}

    def _threshold(self, operands: Operands) -> tuple[int, int]:
        """The key of the smallest variance to keep and how many of equal ones; (0, all) for all."""
        if self.select_topk >= 1:
            return 0, operands.size
        upper = np.zeros(UPPER, np.int64)
        for _, rows in operands.chunks():
            upper += np.bincount(_variance_keys(operands, rows) >> 15, minlength=UPPER)
        zeros = self._zero_variances(operands)
        k = int((operands.size - zeros) * self.select_topk)
        if k == 0:
            return UPPER << 15, 0
        high, rest = kth_from_top(upper, k)
        lower = np.zeros(LOWER, np.int64)
        for _, rows in operands.chunks():
            keys = _variance_keys(operands, rows)
            lower += np.bincount(keys[keys >> 15 == high] & (LOWER - 1), minlength=LOWER)
        low, quota = kth_from_top(lower, rest)
        return high << 15 | low, quota

    def _zero_variances(self, operands: Operands) -> int:
        return sum(
            int(np.count_nonzero(_variance_keys(operands, rows) == 0))
            for _, rows in operands.chunks()
        )

    def _selected(
        self, operands: Operands, rows: Array, bound: int, left: int
    ) -> tuple[Array, int]:
        """Task vectors with what is not selected set to 0, and how many equals may still come."""
        wide = operands.widened(rows)
        deltas = wide[1:] - wide[0]
        if self.select_topk >= 1:
            return deltas, left
        keys = _variance_keys(operands, rows)
        equal = np.flatnonzero(keys == bound)
        keep = keys > bound
        keep[equal[:left]] = True
        return deltas * keep, left - min(left, len(equal))


def _variance_keys(operands: Operands, rows: Array) -> Array:
    """The float32 bits of the variance over models, which order like the variances."""
    wide = operands.widened(rows)
    variance = np.var(wide[1:] - wide[0], axis=0).astype(np.float32)
    return np.asarray(variance.view(np.int32), np.int64)


@dataclass(frozen=True)
class ArceeFusion:
    """Take the other model's element where its importance is at or above median + 1.5 IQR.

    ``importance = |theta_1 - theta_0| * KL(softmax(theta_1 row) || softmax(theta_0 row))``, softmax
    over the last dimension (Arcee 2025). Quantiles are lower ones and exact; mergekit takes them
    from a random million of elements where there are more. Importance is computed in float64: the
    divergence of two near rows cancels, and in float32 what mergekit compares is mostly rounding
    (with ``dtype: float64`` it gives what this gives).
    """

    relative: bool = True

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor: two passes for three quantiles, one to fuse."""
        ranks = [int(q * (operands.size - 1)) for q in (0.25, 0.5, 0.75)]
        low, middle, high = self._quantiles(operands, ranks)
        # All in float32, as the quantiles are: the threshold is often hit exactly.
        bound = np.float32(middle) + np.float32(1.5) * (np.float32(high) - np.float32(low))
        fused = 0
        for start, rows in operands.chunks(whole_rows=True):
            wide = operands.widened(rows)
            take = self._importance(operands, wide) >= bound
            fused += int(np.count_nonzero(take))
            operands.emit_rounded(start, np.where(take, wide[1], wide[0]))
        return {"fused": fused / max(operands.size, 1), "threshold": float(bound)}

    def _importance(self, operands: Operands, wide: Array) -> Array:
        length = operands.shape[-1] if operands.shape else 1
        base, model = wide[0].reshape(-1, length), wide[1].reshape(-1, length)
        p, q = _softmax(model) + 1e-8, _softmax(base) + 1e-8
        divergence = (p * np.log(p / q)).sum(axis=1, keepdims=True)
        # Divergences of 0 come out as rounding errors of either sign.
        scores = np.abs(model - base) * np.maximum(divergence, 0)
        return np.asarray(scores, np.float32).reshape(-1)

    def _quantiles(self, operands: Operands, ranks: list[int]) -> list[float]:
        """The elements of the given ranks, counted from the smallest, of all importances."""
        upper = np.zeros(UPPER, np.int64)
        for keys in self._keys(operands):
            upper += np.bincount(keys >> 15, minlength=UPPER)
        bins = [kth_from_top(upper, operands.size - rank) for rank in ranks]
        lower = np.zeros((len(ranks), LOWER), np.int64)
        for keys in self._keys(operands):
            for n, (high, _) in enumerate(bins):
                lower[n] += np.bincount(keys[keys >> 15 == high] & (LOWER - 1), minlength=LOWER)
        bits = [high << 15 | kth_from_top(lower[n], k)[0] for n, (high, k) in enumerate(bins)]
        return [float(x) for x in np.array(bits, np.uint32).view(np.float32)]

    def _keys(self, operands: Operands) -> Any:
        for _, rows in operands.chunks(whole_rows=True):
            yield self._importance(operands, operands.widened(rows)).view(np.uint32)


def _softmax(rows: Array) -> Array:
    shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
