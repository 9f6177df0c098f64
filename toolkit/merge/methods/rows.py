"""The spherical methods applied to every row or every column of a matrix by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.methods.base import Findings
from toolkit.merge.methods.spherical import Geometry
from toolkit.merge.operands import Operands

__all__ = ["ByColumn", "ByRow"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ByRow:
    """One set of coefficients for each vector along the last dimension.

    Attributes:
        geometry: What to do with the inner products of one row.
        relative: Whether the first operand is a base, from which the others are differences.
    """

    geometry: Geometry
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor, in one pass over whole rows."""
        length = operands.shape[-1] if operands.shape else 1
        for start, rows in operands.chunks(whole_rows=True):
            wide = operands.widened(rows).reshape(len(rows), -1, length)
            base, vectors = _apart(wide, relative=self.relative)
            products = np.einsum("irk,jrk->rij", vectors, vectors)
            found = _coefficients(self.geometry, products, operands.name)
            operands.emit_rounded(start, base + np.einsum("ri,irk->rk", found, vectors))
        return {}


@dataclass(frozen=True)
class ByColumn:
    """One set of coefficients for each vector along the first dimension.

    Attributes:
        geometry: What to do with the inner products of one column.
        relative: Whether the first operand is a base, from which the others are differences.
    """

    geometry: Geometry
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor, in two passes over whole rows."""
        if len(operands.shape) < 2:
            return ByRow(self.geometry, self.relative)(operands)
        count, width = len(operands.tensors) - self.relative, operands.row
        products = np.zeros((width, count, count))
        for _, rows in operands.chunks(whole_rows=True):
            wide = operands.widened(rows).reshape(len(rows), -1, width)
            _, vectors = _apart(wide, relative=self.relative)
            products += np.einsum("irk,jrk->kij", vectors, vectors)
        found = _coefficients(self.geometry, products, operands.name)
        for start, rows in operands.chunks(whole_rows=True):
            wide = operands.widened(rows).reshape(len(rows), -1, width)
            base, vectors = _apart(wide, relative=self.relative)
            operands.emit_rounded(start, base + np.einsum("ki,irk->rk", found, vectors))
        return {}


def _apart(wide: Array, *, relative: bool) -> tuple[Array | float, Array]:
    # -0.0 is the zero that leaves every number, negative zeros included, as it is.
    return (wide[0], wide[1:] - wide[0]) if relative else (-0.0, wide)


def _coefficients(geometry: Geometry, products: Array, name: str) -> Array:
    try:
        return np.array([geometry.coefficients(matrix)[0] for matrix in products])
    except ValueError as error:
        raise MergeError(f"tensor {name!r}: {error}") from error
