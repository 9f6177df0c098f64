"""One output of one case: the candidate's array against the reference's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.parity.behaviour import Behaviour
from toolkit.parity.histogram import LogHistogram
from toolkit.parity.options import Precision, Space

__all__ = ["Deviation", "Mismatch", "by_step", "compare"]

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float64]

# (spacing at 1, largest finite value) of what a runtime may return; numpy knows no bfloat16.
_PRECISION = {
    "float64": (2.0**-52, float(np.finfo(np.float64).max)),
    "float32": (2.0**-23, float(np.finfo(np.float32).max)),
    "float16": (2.0**-10, 65504.0),
    "bfloat16": (2.0**-7, 3.3895e38),
}
_LEAST_SCALE = float(np.finfo(np.float32).tiny)  # below it an output is zero
_BLOCK = 2**20  # elements compared at a time: bounds the temporary arrays to a few of 8 MB


@dataclass(frozen=True)
class Mismatch:
    """A position where one side is finite and the other is not, or both differ in kind."""

    index: tuple[int, ...]
    reference: float
    candidate: float


@dataclass
class Deviation:
    """How far an output is from the reference. Errors are relative to ``scale``.

    Attributes:
        n: Elements compared.
        eps: Spacing of the candidate's precision at 1; 0 for integers.
        rows: Rows of the last axis.
        scale: Root mean square of the reference's finite values; 1 if zero or integers.
        peak: Largest absolute finite reference value.
        rms: Root mean square error.
        max: Largest error, found at ``worst``.
        histogram: Of the errors.
        mismatches: How many positions are not comparable; ``first_mismatch`` is one of them.
        behaviour: The comparison as distributions, for those.
        steps: Root mean square error of each step, of cases that have steps.
    """

    n: int
    eps: float
    rows: int = 1
    scale: float = 1.0
    peak: float = 0.0
    rms: float = 0.0
    max: float = 0.0
    worst: Mismatch | None = None
    histogram: LogHistogram = field(default_factory=LogHistogram)
    mismatches: int = 0
    first_mismatch: Mismatch | None = None
    behaviour: Behaviour | None = None
    steps: tuple[float, ...] = ()


def compare(
    reference: _Array, candidate: _Array, space: Space, precision: Precision = "float32"
) -> Deviation:
    """Measure a candidate's output against the reference's of the same shape.

    ``precision`` is that of the candidate's arithmetic; its outputs may be wider.

    A value that is infinite, or within 1 % of the largest the candidate's dtype can hold (masks
    are often written as the most negative number), is *saturated*. Two saturated values of one
    sign are equal, two NaN are equal; any other pair with one of these is a mismatch.
    """
    eps, largest = _PRECISION.get(candidate.dtype.name, (0.0, np.inf))
    if 0 < eps < _PRECISION[precision][0] and candidate.dtype != np.float64:
        eps = _PRECISION[precision][0]
    width = max(reference.shape[-1], 1) if reference.ndim else 1
    deviation = Deviation(n=reference.size, rows=reference.size // width, eps=eps)
    if space != "values":
        deviation.behaviour = Behaviour()
    if reference.size == 0:
        return deviation
    limit = 0.99 * largest
    if eps:
        _measure_scale(deviation, reference, limit)
    total = 0.0
    for start, wanted, found in _blocks(reference, candidate):
        error = _errors(deviation, wanted, found, limit, start) / deviation.scale
        total += float(np.square(error).sum())
        deviation.histogram.add(error.ravel())
        _note_worst(deviation, error, (wanted, found), start, reference.shape)
        if deviation.behaviour is not None:
            deviation.behaviour.add(wanted, found, space)
    deviation.rms = float(np.sqrt(total / reference.size))
    deviation.first_mismatch = _unravel(deviation.first_mismatch, reference.shape)
    return deviation


def by_step(reference: _Array, candidate: _Array, scale: float) -> tuple[float, ...]:
    """The error over all rows of each step of [rows, steps, …]; not finite pairs do not count."""
    wanted, found = (np.asarray(array, np.float64) for array in (reference, candidate))
    comparable = np.isfinite(wanted) & np.isfinite(found)
    off = np.subtract(found, wanted, out=np.zeros_like(wanted), where=comparable) / scale
    axes = tuple(axis for axis in range(off.ndim) if axis != 1)
    return tuple(float(error) for error in np.sqrt(np.square(off).mean(axis=axes)))


def _blocks(reference: _Array, candidate: _Array) -> Iterator[tuple[int, _Floats, _Floats]]:
    """Rows of the last axis in float64, a block at a time, with the block's first flat index."""
    width = reference.shape[-1] if reference.ndim else 1
    rows, others = reference.reshape(-1, width), candidate.reshape(-1, width)
    step = max(1, _BLOCK // width)
    for row in range(0, len(rows), step):
        wanted = rows[row : row + step].astype(np.float64)
        yield row * width, wanted, others[row : row + step].astype(np.float64)


def _measure_scale(deviation: Deviation, reference: _Array, limit: float) -> None:
    total, count = 0.0, 0
    for _, values, _ in _blocks(reference, reference):
        size = np.abs(values)
        finite = size[size < limit]  # False for NaN as well
        total += float(np.square(finite).sum())
        count += finite.size
        deviation.peak = max(deviation.peak, float(finite.max(initial=0.0)))
    scale = float(np.sqrt(total / count)) if count else 0.0
    deviation.scale = scale if scale >= _LEAST_SCALE else 1.0


def _errors(
    deviation: Deviation, wanted: _Floats, found: _Floats, limit: float, start: int
) -> _Floats:
    """Absolute errors, zero where the pair is not comparable; mismatches are counted."""
    comparable = (np.abs(wanted) < limit) & (np.abs(found) < limit)
    error = np.zeros_like(wanted)
    np.subtract(found, wanted, out=error, where=comparable)
    if not comparable.all():
        equal = (np.isnan(wanted) & np.isnan(found)) | (
            (np.abs(wanted) >= limit)
            & (np.abs(found) >= limit)
            & (np.signbit(wanted) == np.signbit(found))
        )
        _note_mismatches(deviation, ~(comparable | equal), (wanted, found), start)
    return np.abs(error)


def _note_mismatches(
    deviation: Deviation,
    wrong: npt.NDArray[np.bool_],
    pair: tuple[_Floats, _Floats],
    start: int,
) -> None:
    deviation.mismatches += int(wrong.sum())
    if deviation.first_mismatch is None and wrong.any():
        deviation.first_mismatch = _pair(int(np.argmax(wrong)), pair, start)


def _note_worst(
    deviation: Deviation,
    error: _Floats,
    pair: tuple[_Floats, _Floats],
    start: int,
    shape: tuple[int, ...],
) -> None:
    position = int(np.argmax(error))
    largest = float(error.flat[position])
    if largest > deviation.max or deviation.worst is None:
        deviation.max = largest
        deviation.worst = _unravel(_pair(position, pair, start), shape)


def _pair(position: int, pair: tuple[_Floats, _Floats], start: int) -> Mismatch:
    wanted, found = pair
    values = float(wanted.flat[position]), float(found.flat[position])
    return Mismatch((start + position,), *values)


def _unravel(flat: Mismatch | None, shape: tuple[int, ...]) -> Mismatch | None:
    if flat is None:
        return None
    index = tuple(int(i) for i in np.unravel_index(flat.index[0], shape)) if shape else ()
    return Mismatch(index, flat.reference, flat.candidate)
