"""Weighted sums, inner products and the search for NaN, compiled and fused.

All take ``rows``, shape ``[models, elements]``, of bfloat16 bits (``uint16``), float32 or float64,
and compute in float64. Work goes in blocks of ``BLOCK`` elements that stay in the first-level
cache. Sums over elements have a fixed order, so they do not depend on the processor, the number of
threads or, for chunks of whole blocks, the chunk size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.merge.kernels.bits import compiled, is_finite, narrow, widen

__all__ = [
    "BLOCK",
    "delta_sum",
    "first_nonfinite",
    "gram",
    "inner_products",
    "round_into",
    "tree_sum",
    "weighted_sum",
]

BLOCK = 1024


@compiled
def weighted_sum(rows: Any, weights: Any, out: Any) -> None:
    """Store ``sum_i weights[i] * rows[i]``, added in row order and rounded once.

    Rows of weight 0 take no part, so that one weight of 1 gives that row, negative zeros included.
    """
    count, size = rows.shape
    scratch = np.empty(BLOCK, np.float64)
    for start in range(0, size, BLOCK):
        total = scratch[: min(BLOCK, size - start)]
        total[:] = -0.0  # adding to it changes nothing, not even the sign of a zero
        for i in range(count):
            weight = weights[i]
            if weight != 0:
                row = rows[i, start : start + total.size]
                for j in range(total.size):
                    total[j] += weight * np.float64(widen(row[j]))
        target = out[start : start + total.size]
        for j in range(total.size):
            narrow(target, j, total[j])


@compiled
def delta_sum(rows: Any, weights: Any, out: Any) -> None:
    """Store ``rows[0] + sum_i weights[i] * (rows[i] - rows[0])``, rounded once.

    Differences are formed first, so that equal rows or zero weights give row 0 bit for bit.
    """
    count, size = rows.shape
    scratch = np.empty((2, BLOCK), np.float64)
    for start in range(0, size, BLOCK):
        width = min(BLOCK, size - start)
        base, total = scratch[0, :width], scratch[1, :width]
        first = rows[0, start : start + width]
        for j in range(width):
            base[j] = np.float64(widen(first[j]))
            total[j] = 0
        for i in range(1, count):
            weight = weights[i]
            row = rows[i, start : start + width]
            for j in range(width):
                total[j] += weight * (np.float64(widen(row[j])) - base[j])
        target = out[start : start + width]
        for j in range(width):
            total[j] = base[j] + (total[j] if total[j] != 0 else -0.0)
        for j in range(width):
            narrow(target, j, total[j])


@compiled
def _load(rows: Any, relative: bool, start: int, values: Any) -> None:
    """One block as float64, padded with zeros; with ``relative``, less row 0 where it is not it."""
    width = min(BLOCK, rows.shape[1] - start)
    for i in range(rows.shape[0]):
        row, value = rows[i, start : start + width], values[i]
        value[width:] = 0
        for j in range(width):
            value[j] = np.float64(widen(row[j]))
    if relative:
        for i in range(1, rows.shape[0]):
            values[i] -= values[0]


@compiled
def tree_sum(terms: Any) -> float:
    """The sum of ``BLOCK`` numbers by halves, which overwrites them."""
    half = BLOCK // 2
    while half > 0:
        low, high = terms[:half], terms[half : 2 * half]
        for j in range(half):
            low[j] += high[j]
        half //= 2
    return terms[0]  # type: ignore[no-any-return]


@compiled
def _add_products(left: Any, right: Any, total: Any) -> None:
    for j in range(BLOCK):
        total[j] += left[j] * right[j]


@compiled
def gram(rows: Any, relative: bool, first: int, stride: int, total: Any) -> None:
    """Add the products of ``row_i`` and ``row_k`` to ``total[i, k]`` for ``i <= k``.

    Element ``j`` of every block goes to place ``j`` of ``BLOCK`` running sums, so that no sum
    crosses a chunk; ``inner_products`` adds these up.

    Args:
        rows: Whole blocks, except for the last block of a tensor.
        relative: Take rows 1 and up less row 0; row 0 itself stays as it is.
        first: Number of the first block in its tensor.
        stride: Look at the blocks whose number is a multiple of this.
        total: Running sums, ``float64[models, models, BLOCK]``.
    """
    count, size = rows.shape
    values = np.empty((count, BLOCK), np.float64)
    for start in range(0, size, BLOCK):
        if (first + start // BLOCK) % stride == 0:
            _load(rows, relative, start, values)
            for i in range(count):
                for k in range(i, count):
                    _add_products(values[i], values[k], total[i, k])


@compiled
def inner_products(total: Any) -> Any:
    """The matrix ``float64[models, models]`` of what ``gram`` added up."""
    count = total.shape[0]
    found = np.empty((count, count), np.float64)
    for i in range(count):
        for k in range(i, count):
            found[i, k] = found[k, i] = tree_sum(total[i, k].copy())
    return found


@compiled
def _all_finite(block: Any) -> bool:
    good = True
    for j in range(block.size):
        good &= is_finite(block[j])
    return good


@compiled
def first_nonfinite(row: Any) -> int:
    """The index of the first NaN or infinity, or -1."""
    for start in range(0, row.shape[0], BLOCK):
        block = row[start : start + BLOCK]
        if not _all_finite(block):
            for j in range(block.size):
                if not is_finite(block[j]):
                    return start + j
    return -1


@compiled
def round_into(values: Any, out: Any) -> None:
    """Store float64 ``values``, rounded once."""
    for j in range(out.size):
        narrow(out, j, values[j])
