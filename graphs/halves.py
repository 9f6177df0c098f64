"""Constants in half precision: whether they fit, and their conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.tensors import SMALL

__all__ = ["UNDERFLOW", "Halves", "half_misfit"]

# The largest fraction of a constant's values that may become zero.
UNDERFLOW = 0.01
# Eight times what rounding a healthy weight costs: half a unit in the last place, over sqrt(3).
_MOST_MOVED = {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 16e-3}


@dataclass
class Halves:
    """A type of half precision.

    Attributes:
        type: float16 or bfloat16.
        underflow: The largest fraction of values that may become zero.
    """

    type: ir.DataType
    underflow: float
    _known: dict[ir.Value, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``float16`` or ``bfloat16``."""
        return self.type.name.lower()

    def misfit(self, value: ir.Value) -> str:
        """Why a constant of float32 does not fit, or nothing. Infinities and NaN do."""
        if value not in self._known:
            assert value.const_value is not None
            found = self.misfit_of(value.const_value.numpy())
            self._known[value] = f"{value.name} {found}" if found else ""
        return self._known[value]

    def misfit_of(self, array: npt.NDArray[Any]) -> str:
        """The same of its values."""
        finite = array[np.isfinite(array)].astype(np.float32)
        if not finite.size:
            return ""
        with np.errstate(over="ignore", under="ignore"):
            rounded = finite.astype(self.type.numpy()).astype(np.float32)
        if not np.isfinite(rounded).all():
            largest = float(np.abs(finite).max())
            return f"holds {largest:.3g}, more than {self.name} can"
        nonzero = np.count_nonzero(finite)
        lost = nonzero - np.count_nonzero(rounded)
        if lost > self.underflow * nonzero:
            return f"loses {lost} of {nonzero} values to zero in {self.name}"
        norm = float(np.linalg.norm(finite.astype(np.float64)))
        moved = float(np.linalg.norm(rounded.astype(np.float64) - finite))
        if moved > _MOST_MOVED[self.type] * norm:
            return f"moves by {100 * moved / norm:.2g} % of its norm in {self.name}"
        return ""

    def convert(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        """The tensor rounded to nearest; a large one only when it is read or written."""

        def rounded() -> ir.Tensor[npt.NDArray[Any]]:
            with np.errstate(over="ignore", under="ignore"):
                array = tensor.numpy().astype(self.type.numpy())
            return ir.Tensor(array, dtype=self.type, name=name)

        if tensor.nbytes < SMALL:
            return rounded()
        return ir.LazyTensor(
            rounded, dtype=self.type, shape=ir.Shape(tensor.shape.numpy()), name=name
        )


def half_misfit(precision: str, array: npt.NDArray[Any]) -> str:
    """Why a constant does not fit into ``float16`` or ``bfloat16`` as ``MixedPrecision`` asks.

    Empty where it does.
    """
    return Halves(ir.DataType[precision.upper()], UNDERFLOW).misfit_of(array)
