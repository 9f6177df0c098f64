"""What of an output is compared where some of its tokens are left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.parity.compare import Deviation, Mismatch

__all__ = ["Kept", "kept_of"]

_Array = npt.NDArray[Any]
_CACHE_AXES = 4  # [rows, heads, positions, width]
_TOKEN_AXES = 3  # [rows, positions, ...]


@dataclass(frozen=True)
class Kept:
    """Which rows, or which positions of which rows.

    Attributes:
        mask: [B] or [B, n], True where an output is compared.
        axis: Of the positions; 0 if whole rows are kept.
    """

    mask: npt.NDArray[np.bool_]
    axis: int

    def of(self, array: _Array) -> _Array:
        """What is kept of an output, [kept, ...]."""
        kept: _Array = (np.moveaxis(array, self.axis, 1) if self.axis else array)[self.mask]
        return kept

    def filled(self, array: _Array, other: _Array) -> _Array:
        """``array`` where it is kept, and ``other`` elsewhere."""
        if not self.axis:
            shape = (*self.mask.shape, *[1] * (array.ndim - self.mask.ndim))
        else:
            shape = tuple(
                size if axis in {0, self.axis} else 1 for axis, size in enumerate(array.shape)
            )
        return np.where(self.mask.reshape(shape), array, other)

    def placed(self, deviation: Deviation) -> Deviation:
        """A comparison of what is kept, with indices into the whole output."""
        return replace(
            deviation,
            worst=self._placed(deviation.worst),
            first_mismatch=self._placed(deviation.first_mismatch),
        )

    def _placed(self, point: Mismatch | None) -> Mismatch | None:
        if point is None:
            return None
        first, *rest = point.index
        where = [int(i) for i in np.argwhere(self.mask)[first]]
        if self.axis:
            row, position = where
            rest.insert(self.axis - 1, position)
            where = [row]
        return replace(point, index=(*where, *rest))


def kept_of(array: _Array, out: npt.NDArray[np.bool_], *, causal: bool) -> Kept:
    """What to compare of an output, given the tokens [B, P] that are left out.

    In a causal model a position hangs on those before it only: caches keep their early positions,
    and of fewer or more positions than tokens the last ones are those of the tokens. Otherwise,
    and where it is not clear which dimension counts positions, whole rows are left out.

    An output that has no row for each row of the tokens is left out as a whole.
    """
    rows, tokens = out.shape
    if array.ndim == 0 or array.shape[0] != rows:
        return Kept(np.zeros(array.shape[:1], bool), 0)
    if not causal or array.ndim < _TOKEN_AXES:
        return Kept(np.asarray(~out.any(axis=1)), 0)
    axis = 2 if array.ndim == _CACHE_AXES else 1
    count = array.shape[axis]
    mask = np.ones((rows, count), bool)
    shared = min(count, tokens)
    mask[:, count - shared :] = ~out[:, tokens - shared :]
    return Kept(mask, axis)
