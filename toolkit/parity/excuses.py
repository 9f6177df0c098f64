"""Whether rounding can have sent a token to other experts: by the scores of those that changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.parity.selections import Router

__all__ = ["SHUT", "excess", "margin"]

_Array = npt.NDArray[Any]

SHUT = -1e30
"""Routers mask what cannot be chosen with scores below this."""


def excess(
    wanted: Router, ids: Iterable[int], token: tuple[int, int], experts: int,
    limits: Mapping[int, float],
) -> float:  # fmt: skip
    """How many times what rounding may turn a token's change of experts takes; at most 1 if it may.

    Experts that were dropped for others must have scores near those of the others: that *some*
    two scores are near each other excuses no change between other experts. Where groups were
    chosen first, the same holds for groups, and what follows from another group is excused.

    Args:
        wanted: What the reference did.
        ids: What the token chose instead.
        token: Its row and position.
        experts: E.
        limits: By selection, how far rounding may turn two scores.
    """
    before, after = set(wanted.ids[token].tolist()), set(ids)
    dropped, added = sorted(before - after), sorted(after - before)
    found = [np.inf]
    for number, limit in limits.items():
        top, scores = wanted.selections[number]
        own = scores[token]
        count = len(own)
        if count == experts:
            found.extend(_between(own, dropped, added, limit))
        elif experts % count == 0:
            found.extend(_groups(own, top, {one * count // experts for one in added}, limit))
    return min(found)


def _between(scores: _Array, dropped: list[int], added: list[int], limit: float) -> Iterator[float]:
    if not dropped or not added:
        return
    held = scores[[*dropped, *added]]
    if np.isfinite(held).all() and (held > SHUT).all():
        yield float(scores[dropped].max() - scores[added].min()) / max(limit, 1e-300)


def _groups(scores: _Array, top: int, entered: set[int], limit: float) -> Iterator[float]:
    """The groups of added experts that had not been chosen, against the last that was."""
    order = np.argsort(-scores, kind="stable")
    outside = [group for group in order[top:].tolist() if group in entered]
    if outside:
        yield float(scores[order[top - 1]] - scores[outside].min()) / max(limit, 1e-300)


def margin(scores: _Array, top: int) -> _Array:
    """The distance [B, P] between the last that was taken and the first that was not."""
    if top >= scores.shape[-1]:
        return np.full(scores.shape[:-1], np.inf)
    ordered = -np.sort(-scores, axis=-1)
    with np.errstate(invalid="ignore"):
        gap = ordered[..., top - 1] - ordered[..., top]
    far: _Array = np.nan_to_num(gap, nan=np.inf, posinf=np.inf)
    return far
