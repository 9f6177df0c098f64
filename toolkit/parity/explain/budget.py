"""How far a value inside a graph is from its reference, and how far it may be.

A value's budget is the error that the same value has in a healthy graph on the same inputs; its
unit is never less than the rounding of the value's own dtype. R is the error in that unit, the
larger of root mean square and maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Error", "measure", "rounding", "times_healthy"]

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]

# Spacing at 1 and largest finite value, by dtype; whole numbers have no rounding.
_PRECISION = {
    "float64": (2.0**-52, 1.7976931348623157e308),
    "float32": (2.0**-23, 3.4028234663852886e38),
    "float16": (2.0**-10, 65504.0),
    "bfloat16": (2.0**-7, 3.3895313892515355e38),
}
# A healthy runtime's operators may be this much less accurate than PyTorch's.
_KERNELS = 64.0


@dataclass(frozen=True)
class Error:
    """The difference between a value and its reference.

    Attributes:
        rms: Root mean square, absolute.
        max: Largest, absolute.
        scale: Root mean square of the reference.
        peak: Largest absolute reference value.
        index: Where the error is largest; empty for no elements.
        reference: The reference there.
        found: The value there.
        comparable: False if shapes differ, or one side is NaN or infinite where the other is not.
    """

    rms: float = 0.0
    max: float = 0.0
    scale: float = 0.0
    peak: float = 0.0
    index: tuple[int, ...] = ()
    reference: float = 0.0
    found: float = 0.0
    comparable: bool = True


def rounding(dtype: np.dtype[Any]) -> float:
    """The spacing of floats at 1; 0 for whole numbers and booleans."""
    return _PRECISION.get(dtype.name, (0.0, 0.0))[0]


def measure(reference: _Array, found: _Array) -> Error:
    """Compare; values beyond what the narrower dtype holds count as infinite."""
    if reference.shape != found.shape:
        return Error(comparable=False)
    if not reference.size:
        return Error()
    largest = 0.99 * _PRECISION.get(found.dtype.name, (0.0, np.inf))[1]
    wanted, have = _flat(reference), _flat(found)
    size = np.abs(wanted)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(have - wanted)
    worst = int(error.argmax())
    comparable = True
    # False for NaN as well: then some pairs must be looked at one by one.
    if not (error[worst] < largest and size.max() < largest):
        finite = (size < largest) & (np.abs(have) < largest)
        same = finite | _equal_kind(wanted, have, largest)
        error, size = np.where(finite, error, 0.0), size[finite]
        comparable = bool(same.all())
        worst = int(error.argmax() if comparable else same.argmin())
    return Error(
        rms=float(np.sqrt(error @ error / error.size)),
        max=float(error.max()),
        scale=float(np.sqrt(size @ size / size.size)) if size.size else 0.0,
        peak=float(size.max(initial=0.0)),
        index=tuple(int(i) for i in np.unravel_index(worst, reference.shape)),
        reference=float(wanted[worst]),
        found=float(have[worst]),
        comparable=comparable,
    )


def _flat(array: _Array) -> _Floats:
    return array.reshape(-1).astype(np.float64, copy=False)


def _equal_kind(wanted: _Floats, have: _Floats, largest: float) -> npt.NDArray[np.bool_]:
    """Both NaN, or both infinite with the same sign."""
    infinite = (np.abs(wanted) >= largest) & (np.abs(have) >= largest)
    kind = np.isnan(wanted) & np.isnan(have)
    same: npt.NDArray[np.bool_] = kind | (infinite & (np.signbit(wanted) == np.signbit(have)))
    return same


def times_healthy(
    error: Error, twin: Error | None, pytorch: Error | None, coarser: float, eps: float
) -> tuple[float, float]:
    """R, and the healthy root mean square error it is a multiple of.

    Args:
        error: Of the value in question.
        twin: Of the same value in a fresh export, run by the same runtime.
        pytorch: Of the same value in PyTorch. A fresh export that is wrong itself must not set
            the measure: the twin's error counts up to a multiple of PyTorch's.
        coarser: How many times coarser the arithmetic in front of the value is than the twin's.
        eps: Rounding of the value's dtype.
    """
    if not error.comparable:
        return float("inf"), 0.0
    floors = eps * error.scale, 2 * eps * error.peak
    units = []
    for name, floor in zip(("rms", "max"), floors, strict=True):
        unit = floor
        if pytorch is not None:
            unit = max(unit, coarser * getattr(pytorch, name))
        if twin is not None and twin.comparable:
            seen = coarser * getattr(twin, name)
            unit = max(unit, seen if pytorch is None else min(seen, _KERNELS * unit))
        units.append(unit)
    ratio = max(_over(error.rms, units[0]), _over(error.max, units[1]))
    return ratio, units[0]


def _over(error: float, unit: float) -> float:
    if unit > 0:
        return error / unit
    return float("inf") if error > 0 else 0.0
