"""Tensors that are stored twice although a model has them once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from toolkit.checkpoint.folder import Checkpoint

__all__ = ["tied"]

_PIECE = 1 << 22


def tied(checkpoint: Checkpoint) -> dict[str, str]:
    """Matrices whose bytes another matrix has: each with the first of them.

    Only matrices of the same dtype and shape with a row for every entry of the vocabulary are
    compared, which are the ones that models tie (Press & Wolf 2017); of those that differ the
    first piece is read.
    """
    rows = checkpoint.config.get("vocab_size")
    groups: dict[object, list[str]] = defaultdict(list)
    for name, (_, entry) in checkpoint.tensors.items():
        if len(entry.shape) == 2 and (rows is None or entry.shape[0] == rows):
            groups[entry.dtype, entry.shape].append(name)
    found: dict[str, str] = {}
    for names in groups.values():
        for at, name in enumerate(names):
            first = next(
                (n for n in names[:at] if n not in found and _same(checkpoint, n, name)), ""
            )
            if first:
                found[name] = first
    return found


def _same(checkpoint: Checkpoint, one: str, two: str) -> bool:
    a, b = (checkpoint.read(name).reshape(-1).view(np.uint8) for name in (one, two))
    return all(
        np.array_equal(a[start : start + _PIECE], b[start : start + _PIECE])
        for start in range(0, len(a), _PIECE)
    )
