"""Which experts a runner chose in a case, token by token, beside what the reference chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.feeds import Case
from toolkit.runtime.base import Feeds, Outputs, Runner
from toolkit.runtime.choices import Choice, choices_in

__all__ = ["Place", "Router", "by_row", "routers_in", "rows_of", "run_watched", "valid_tokens"]

_Array = npt.NDArray[Any]
Place = tuple[str, int]
"""A router: path of its model in the ensemble, and its place in the model."""


@dataclass
class Router:
    """What one router did in one case; axes are rows, positions, and choices or candidates.

    Attributes:
        layer: Its name in what ran.
        ids: [B, P, k].
        selections: By place of the selection: how many it took, and of which scores [B, P, n].
    """

    layer: str
    ids: _Array = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))
    selections: dict[int, tuple[int, _Array]] = field(default_factory=dict)


def routers_in(found: Mapping[str, _Array]) -> dict[Place, Router]:
    """The routers in what a runner or a store gives, in the order they run."""
    routers: dict[Place, Router] = {}
    for name, array in found.items():
        choice = Choice.read(name)
        if choice is None:
            continue
        router = routers.setdefault((choice.member, choice.place), Router(choice.layer))
        if choice.scores is None:
            router.ids = array
        elif array.shape[-1] > 1:
            router.selections[choice.scores] = (choice.top, array)
    return dict(sorted(routers.items()))


def run_watched(run: Runner, case: Case) -> Outputs:
    """The outputs of a case, and the choices of all the runs it takes one after the other."""
    seen: list[Outputs] = []

    def noting(feeds: Feeds) -> Outputs:
        found = run(feeds)
        told = choices_in(found)
        seen.append(by_row(told, rows_of(feeds)))
        return {name: array for name, array in found.items() if name not in told}

    outputs = case.run(noting)
    names = [name for name in seen[0] if all(name in one for one in seen)] if seen else []
    told = {name: np.concatenate([one[name] for one in seen], axis=1) for name in names}
    return {**outputs, **told}


def rows_of(feeds: Feeds) -> int:
    """How many rows feeds have: the leading dimension of the first that has one."""
    return next((array.shape[0] for array in feeds.values() if array.ndim), 1)


def by_row(told: Outputs, rows: int) -> Outputs:
    """[T, n] as [B, P, n]; one row of T where tokens are not those of the rows."""
    return {
        name: array.reshape(
            rows if rows and len(array) % rows == 0 else 1, -1, array.shape[-1]
        ) if array.size else array.reshape(rows, 0, array.shape[-1])
        for name, array in told.items()
    }  # fmt: skip


def valid_tokens(case: Case, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Tokens [B, P] whose outputs are read by anybody."""
    rows, positions = shape[:2]
    every = np.ones((rows, positions), bool)
    if case.mask is None:
        return every
    mask = case.feeds()[case.mask] != 0
    return mask[:, -positions:] if mask.shape[0] == rows and mask.shape[1] >= positions else every
