"""A decoder's inputs by what they are for: token ids, mask, positions, caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.caches import CROSS, PAST, cache_names, present_of
from toolkit.feeds.cases import Arrays

__all__ = ["Caches", "caches_of"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Caches:
    """A decoder's inputs by what they are for.

    Attributes:
        inputs: All of them.
        ids: Name of the token ids [batch, sequence].
        mask: Name of the attention mask [batch, past + sequence], if there is one.
        positions: Name of the position ids [batch, sequence], if there are any.
        past: Names of the caches.
        cross: Names of the caches of cross-attention, if it has an encoder.
        source: Of a decoder with an encoder, what stays the same at every step: the mask of the
            source [batch, source], and ``cross``.
    """

    inputs: tuple[TensorSpec, ...]
    ids: str
    mask: str | None
    positions: str | None
    past: tuple[str, ...]
    cross: tuple[str, ...] = ()
    source: tuple[str, ...] = ()

    def feeds(self, ids: _Array, past: Mapping[str, _Array], given: Mapping[str, _Array]) -> Arrays:
        """The inputs for ``ids`` [batch, new] after what ``past`` holds.

        ``given`` has at least what ``source`` names.
        """
        rows, new = ids.shape
        known = next(iter(past.values())).shape[2]
        made: Arrays = {self.ids: ids, **{name: past[name] for name in self.past}}
        made.update({name: given[name] for name in self.source})
        for spec in self.inputs:
            if spec.name == self.mask:
                made[spec.name] = np.ones((rows, known + new), spec.dtype)
            elif spec.name == self.positions:
                places = np.arange(known, known + new, dtype=spec.dtype)
                made[spec.name] = np.broadcast_to(places, ids.shape)
        return made

    def empty(self, rows: int) -> dict[str, _Array]:
        """Caches of nothing."""
        shapes = {spec.name: spec for spec in self.inputs if spec.name in self.past}
        return {
            name: np.zeros(
                [rows, *(dim if isinstance(dim, int) else 0 for dim in spec.shape[1:])], spec.dtype
            )
            for name, spec in shapes.items()
        }

    def present(self, past: str) -> str:
        """The output that is the next run's ``past``."""
        return present_of(past)

    def kept(self, found: Arrays) -> dict[str, _Array]:
        """What a run gave, as the next run's caches."""
        return {name: found[self.present(name)] for name in self.past}


def caches_of(inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> Caches | None:
    """The caches of a decoder by Hugging Face's names; None for any other model."""
    past = tuple(spec.name for spec in inputs if spec.name.startswith(PAST))
    ids = next((s.name for s in inputs if s.name.endswith("input_ids")), None)
    paired = len(cache_names(past, outputs)) == len(past)
    if not past or ids is None or not paired or "logits" not in outputs:
        return None
    cross = tuple(spec.name for spec in inputs if spec.name.startswith(CROSS))
    masks = tuple(spec.name for spec in inputs if spec.role == "mask")
    source = (*masks, *cross) if cross else ()
    mask = masks[0] if masks and not cross else None
    positions = next((s.name for s in inputs if s.name.endswith("position_ids")), None)
    return Caches(tuple(inputs), ids, mask, positions, past, cross, source)
