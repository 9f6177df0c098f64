"""The last step of every task-vector method: agree on signs, add up, return to the base."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.merge.kernels.bits import compiled, narrow, widen
from toolkit.merge.kernels.sums import BLOCK, tree_sum

__all__ = ["combine", "masked_mass"]


# Each loop stores into one or two arrays only: with more, the compiler gives up proving that they
# do not overlap and falls back to one element at a time.
@compiled
def _task_vector(row: Any, base: Any, mask: Any, weight: float, factor: float, delta: Any) -> None:
    for j in range(delta.size):
        value = np.float64(widen(row[j])) - base[j]
        delta[j] = weight * (factor * value) * np.float64(mask[j])


@compiled
def _add(delta: Any, total: Any) -> None:
    for j in range(delta.size):
        total[j] += delta[j]


@compiled
def _widest(delta: Any, high: Any, low: Any) -> None:
    for j in range(delta.size):
        high[j] = delta[j] if delta[j] > high[j] else high[j]
        low[j] = delta[j] if delta[j] < low[j] else low[j]


@compiled
def _opposed(left: Any, right: Any) -> int:
    count = 0
    for j in range(left.size):
        count += np.int64(left[j] * right[j] < 0)
    return count


@compiled
def _signs(total: Any, sign: Any) -> None:
    for j in range(sign.size):
        sign[j] = 1.0 if total[j] >= 0 else -1.0


@compiled
def _add_agreeing(delta: Any, sign: Any, weight: float, total: Any, divisor: Any) -> None:
    for j in range(delta.size):
        agrees = np.float64(delta[j] * sign[j] > 0)
        total[j] += delta[j] * agrees
        divisor[j] += weight * agrees


@compiled
def _divide(total: Any, divisor: Any) -> None:
    for j in range(total.size):
        total[j] /= divisor[j] if divisor[j] != 0 else 1.0


@compiled
def _elect(deltas: Any, weights: Any, sign: Any, total: Any, divisor: Any) -> int:
    """Keep what agrees with the sign of ``total``; return how many entries do not."""
    _signs(total, sign)
    total[:] = 0
    divisor[:] = 0
    removed = 0
    for i in range(deltas.shape[0]):
        delta = deltas[i, : total.size]
        removed += _opposed(delta, sign)
        _add_agreeing(delta, sign, weights[i], total, divisor)
    return removed


@compiled
def _sum_weights(weights: Any) -> float:
    total = 0.0
    for i in range(weights.size):
        total += weights[i]
    return total if abs(total) >= 1e-8 else 1.0


@compiled
def combine(
    rows: Any,
    masks: Any,
    weights: Any,
    factors: Any,
    elect: bool,
    normalize: bool,
    scale: float,
    out: Any,
    counts: Any,
) -> None:
    """Store ``base + scale * mean_i(weights[i] * factors[i] * masks[i] * tau_i)``.

    Args:
        rows: Base, then models, ``[1 + models, elements]``.
        masks: What is left of each entry after trimming, ``[models, elements]``.
        weights: ``float64[models]``.
        factors: Rescaling after trimming, ``float64[models]``.
        elect: Leave out entries whose sign is not that of the sum (a sum of 0 counts as +).
        normalize: Divide by the weights of the entries that took part (with ``elect``) or of all
            models; where these add up to 0 nothing is divided.
        scale: The factor lambda on the merged task vector.
        out: Receives the result, rounded once.
        counts: Adds, ``int64[2]``: elements where surviving entries had both signs; entries that
            the election removed.
    """
    models, size = masks.shape
    deltas, scratch = np.empty((models, BLOCK)), np.empty((5, BLOCK))
    for start in range(0, size, BLOCK):
        width = min(BLOCK, size - start)
        base, total, divisor = scratch[0, :width], scratch[1, :width], scratch[2, :width]
        high, low = scratch[3, :width], scratch[4, :width]
        total[:] = 0
        high[:] = 0
        low[:] = 0
        first, target = rows[0, start : start + width], out[start : start + width]
        for j in range(width):
            base[j] = np.float64(widen(first[j]))
        for i in range(models):
            row, mask = rows[i + 1, start : start + width], masks[i, start : start + width]
            _task_vector(row, base, mask, weights[i], factors[i], deltas[i, :width])
            _add(deltas[i, :width], total)
            _widest(deltas[i, :width], high, low)
        counts[0] += _opposed(high, low)
        divisor[:] = _sum_weights(weights)
        if elect:
            counts[1] += _elect(deltas, weights, high, total, divisor)
        if normalize:
            _divide(total, divisor)
        for j in range(width):
            total[j] = scale * total[j]
        for j in range(width):
            total[j] = base[j] + (total[j] if total[j] != 0 else -0.0)
        for j in range(width):
            narrow(target, j, total[j])


@compiled
def masked_mass(row: Any, base: Any, mask: Any, sums: Any) -> None:
    """Add ``sum |tau|`` to ``sums[0]`` and ``sum |mask * tau|`` to ``sums[1]``, in float64."""
    every, kept = np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, row.size, BLOCK):
        width = min(BLOCK, row.size - start)
        part, origin = row[start : start + width], base[start : start + width]
        marks = mask[start : start + width]
        every[width:] = 0
        kept[width:] = 0
        for j in range(width):
            every[j] = abs(np.float64(widen(part[j])) - np.float64(widen(origin[j])))
        for j in range(width):
            kept[j] = every[j] * np.float64(marks[j])
        sums[0] += tree_sum(every)
        sums[1] += tree_sum(kept)
