"""The k largest magnitudes of a task vector, exactly, without sorting or holding it.

The magnitude of a float32 orders like its 31 bits read as an integer (the key). A histogram over
the upper 16 bits of all keys finds the bin of the k-th largest; a second over the lower 15 bits of
the keys in that bin finds the key itself. Of the elements that equal it, the first ones are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.merge.kernels.bits import compiled, float_bits, widen

__all__ = [
    "LOWER",
    "UPPER",
    "count_equal",
    "kth_from_top",
    "lower_histogram",
    "mask_top",
    "upper_histogram",
]

UPPER = 1 << 16
LOWER = 1 << 15
_SHIFT = 15


@compiled
def _key(element: Any, base: Any) -> Any:
    difference = np.float32(widen(element) - widen(base))
    return np.uint32(float_bits(difference) & np.uint32(0x7FFFFFFF))


@compiled
def upper_histogram(row: Any, base: Any, counts: Any) -> None:
    """Count the upper 16 bits of every key into ``counts[65536]``."""
    for j in range(row.size):
        counts[_key(row[j], base[j]) >> np.uint32(_SHIFT)] += 1


@compiled
def lower_histogram(row: Any, base: Any, upper: int, counts: Any) -> None:
    """Count the lower 15 bits of the keys whose upper bits are ``upper`` into ``counts[32768]``."""
    wanted = np.uint32(upper)
    for j in range(row.size):
        key = _key(row[j], base[j])
        if np.uint32(key >> np.uint32(_SHIFT)) == wanted:
            counts[key & np.uint32(LOWER - 1)] += 1


@compiled
def count_equal(row: Any, base: Any, key: int) -> int:
    """How many keys are ``key``."""
    wanted = np.uint32(key)
    count = 0
    for j in range(row.size):
        count += np.int64(_key(row[j], base[j]) == wanted)
    return count


def kth_from_top(counts: Any, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest, and how many of its own elements are needed.

    Args:
        counts: Elements per bin, ``int64[bins]``.
        k: From 1 to the sum of ``counts``.
    """
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, k))
    above = int(from_top[place - 1]) if place else 0
    return len(counts) - 1 - place, k - above


@compiled
def mask_top(row: Any, base: Any, threshold: int, quota: int, mask: Any) -> int:
    """Mark the keys above ``threshold`` and the first ``quota`` that equal it; return what is left.

    Args:
        row: Elements of a model.
        base: Elements of the base model.
        threshold: The k-th largest key.
        quota: How many equal keys may still be kept.
        mask: Receives 1 or 0, ``uint8[elements]``.
    """
    limit = np.uint32(threshold)
    for start in range(0, row.size, 1024):
        part, origin = row[start : start + 1024], base[start : start + 1024]
        marks = mask[start : start + 1024]
        equal = 0
        for j in range(part.size):
            key = _key(part[j], origin[j])
            marks[j] = np.uint8(key >= limit)
            equal += np.int64(key == limit)
        if equal > quota:  # only here does the order within the block matter
            for j in range(part.size):
                if _key(part[j], origin[j]) == limit:
                    marks[j] = np.uint8(quota > 0)
                    quota -= np.int64(quota > 0)
        else:
            quota -= equal
    return quota
