"""Tensors that are not computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.errors import MergeError
from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import Operands
from toolkit.merge.tensors import STORED

__all__ = ["Copy"]

_STEP = 1 << 20


@dataclass(frozen=True)
class Copy:
    """The first operand, byte for byte; the others must hold the same.

    For whole numbers, of which an average has no meaning, and for models taken as they are.
    """

    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Copy one tensor."""
        stored = STORED[operands.dtype]
        for start in range(0, operands.size, _STEP):
            count = min(_STEP, operands.size - start)
            values = operands.scratch.array("copied", (count,), stored)
            operands.tensors[0].read(start, values)
            operands.advance(values.nbytes)
            for tensor, label in zip(operands.tensors[1:], operands.labels[1:], strict=True):
                other = operands.scratch.array("other", (count,), stored)
                tensor.read(start, other)
                operands.advance(other.nbytes)
                if not np.array_equal(values, other):
                    raise MergeError(
                        f"tensor {operands.name!r} holds whole numbers ({operands.dtype}) that "
                        f"differ between {operands.labels[0]} and {label}; averages of them have "
                        "no meaning",
                        hint="packed or quantised weights must be dequantised before merging",
                    )
            operands.sink.write(start, values)
        return {"branch": "copy"}
