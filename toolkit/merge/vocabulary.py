"""Embeddings of models with different vocabularies, brought onto one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.merge.tensors import STORED, Tensor, convert

__all__ = ["PAD", "ZERO", "RowTensor", "Rows"]

Array = npt.NDArray[Any]

# What stands in the place of a row number.
ZERO = -1
PAD = -2
# Where a new row comes from: (model, row) pairs, averaged if there are several.
Rows = Mapping[int, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class RowTensor:
    """A matrix put together from rows of several, computed as it is read.

    Attributes:
        own: The matrix most rows come from.
        others: All models' matrices, for the rows that this one lacks.
        rows: For each row its number in ``own``, ``ZERO``, or ``PAD`` (the mean of all others).
        borrowed: Rows that come from other matrices.
        dtype: Format of the result; that of ``own`` where nothing is averaged.
    """

    own: Tensor
    others: Sequence[Tensor]
    rows: npt.NDArray[np.int64] = field(repr=False)
    borrowed: Rows = field(repr=False)
    dtype: str
    _mean: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """As many rows as the new vocabulary has."""
        return (len(self.rows), *self.own.shape[1:])

    def read(self, start: int, out: Array) -> None:
        """Gather the rows that hold a range."""
        width = self.shape[1]
        first, stop = start // width, -(-(start + out.size) // width)
        for row in range(first, stop):
            low, high = max(row * width, start), min((row + 1) * width, start + out.size)
            values = self._row(row)
            out[low - start : high - start] = values[low - row * width : high - row * width]

    def _row(self, row: int) -> Array:
        number = int(self.rows[row])
        if row in self.borrowed:
            found = [self._wide(self.others[m], n) for m, n in self.borrowed[row]]
            if len(found) == 1 and self.dtype == self.own.dtype:
                model, number = self.borrowed[row][0]
                return self._stored(self.others[model], number)
            return self._as_stored(np.mean(found, axis=0))
        if number == PAD:
            return self._as_stored(self._average())
        if number == ZERO:
            return np.zeros(self.shape[1], STORED[self.dtype])
        if self.dtype == self.own.dtype:
            return self._stored(self.own, number)
        return self._as_stored(self._wide(self.own, number))

    def _stored(self, tensor: Tensor, row: int) -> Array:
        values = np.empty(self.shape[1], STORED[tensor.dtype])
        tensor.read(row * self.shape[1], values)
        return values

    def _wide(self, tensor: Tensor, row: int) -> Array:
        out = np.empty(self.shape[1], np.float64)
        convert(self._stored(tensor, row), tensor.dtype, out)
        return out

    def _as_stored(self, values: Array) -> Array:
        return np.asarray(values, STORED[self.dtype])

    def _average(self) -> Array:
        """The mean of all rows that are not padding, read once."""
        with self._lock:
            if "mean" not in self._mean:
                total, count = np.zeros(self.shape[1]), 0
                for row in np.flatnonzero(self.rows != PAD):
                    wide = np.empty(self.shape[1], np.float64)
                    convert(self._row(int(row)), self.dtype, wide)
                    total, count = total + wide, count + 1
                self._mean["mean"] = total / max(count, 1)
        return self._mean["mean"]
