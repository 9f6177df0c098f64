"""Arrays that are valid for an input: its dtype, its range, and what its role promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError

__all__ = ["Fill", "make_feeds"]

Fill = Literal[
    "random", "full", "left", "single_valid", "smallest", "largest", "repeated", "large", "zeros"
]
"""How the values are drawn.

``random``: values over the whole range, masks padded on the right by a random length per row;
``left``: the same, padded on the left; ``full``: the same without padding;
``single_valid``: every row padded but its first position;
``smallest`` and ``largest``: every value at the end of its range; ``repeated``: one id per row;
``large``: floats a hundred times larger than usual; ``zeros``: zero, or the valid value nearest it.
Masks are all ones except under ``random``, ``left`` and ``single_valid``.
"""

_Array = npt.NDArray[Any]

# Integers without bounds are often indices into a table of unknown length: 0 and 1 are the only
# values that nearly every model accepts.
_UNBOUNDED_VALUES = 2
_LARGE = 100.0


def make_feeds(
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, int],
    rng: np.random.Generator,
    fill: Fill = "random",
) -> dict[str, _Array]:
    """Draw one array per input.

    Args:
        inputs: The specifications; integers and floats keep ``low <= value < high``.
        dims: The value of every symbolic dimension.
        rng: Source of all randomness; inputs are drawn in the order given.
        fill: How values are drawn, see ``Fill``.

    Raises:
        RecipeError: If a range is empty in the input's dtype.
    """
    return {spec.name: _draw(spec, spec.resolve(dims), rng, fill) for spec in inputs}


def _draw(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, fill: Fill) -> _Array:
    if spec.role == "mask":
        return _mask(shape, rng, fill).astype(_numpy_dtype(spec.dtype))
    if spec.dtype == "bool":
        return _booleans(shape, rng, fill)
    if spec.dtype.startswith(("int", "uint")):
        return _integers(spec, shape, rng, fill)
    return _floats(spec, shape, rng, fill)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # noqa: PLC0415  (comes with onnx; only models fed bfloat16 need it)

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def _mask(shape: tuple[int, ...], rng: np.random.Generator, fill: Fill) -> _Array:
    """Ones then zeros along the last axis (``left``: the reverse), one length for each row."""
    if not shape:
        return np.ones(shape)
    positions = shape[-1]
    rows = (shape[0],) + (1,) * (len(shape) - 1) if len(shape) > 1 else (1,)
    lengths = np.full(rows, positions)
    if fill in {"random", "left"}:
        lengths = rng.integers(1, positions + 1, rows)
    elif fill == "single_valid":
        lengths = np.ones(rows, dtype=np.int64)
    place = np.arange(positions)
    return np.broadcast_to((place[::-1] if fill == "left" else place) < lengths, shape)


def _booleans(shape: tuple[int, ...], rng: np.random.Generator, fill: Fill) -> _Array:
    if fill in {"smallest", "zeros"}:
        return np.zeros(shape, dtype=bool)
    if fill == "largest":
        return np.ones(shape, dtype=bool)
    return rng.integers(0, 2, shape).astype(bool)


def _integer_range(spec: TensorSpec) -> tuple[int, int]:
    """Smallest value and smallest value too large, inside what the dtype can hold."""
    limits = np.iinfo(spec.dtype)
    if spec.low is None and spec.high is None and limits.bits == 8:
        return int(limits.min), int(limits.max) + 1  # pixels, quantised values
    low, high = spec.low, spec.high
    if low is None:
        low = 0.0 if high is None or high > 0 else high - _UNBOUNDED_VALUES
    if high is None:
        high = low + _UNBOUNDED_VALUES
    first = max(int(np.ceil(low)), int(limits.min))
    end = min(int(np.ceil(high)), int(limits.max) + 1)
    _require(first < end, spec)
    return first, end


def _integers(
    spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, fill: Fill
) -> _Array:
    low, end = _integer_range(spec)
    dtype = np.dtype(spec.dtype)
    constant = {"smallest": low, "largest": end - 1, "zeros": min(max(0, low), end - 1)}.get(fill)
    if constant is not None:
        return np.full(shape, constant, dtype)
    if fill == "repeated" and len(shape) > 1:
        row = (shape[0],) + (1,) * (len(shape) - 1)
        ids: _Array = np.broadcast_to(_uniform(rng, low, end, row, dtype), shape).copy()
        return ids
    return _uniform(rng, low, end, shape, dtype)


def _uniform(
    rng: np.random.Generator, low: int, end: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> _Array:
    values: _Array = rng.integers(low, end, shape, dtype)
    return values


def _floats(
    spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, fill: Fill
) -> _Array:
    dtype = _numpy_dtype(spec.dtype)
    smallest, largest = _float_range(spec, dtype)
    values = _float_values(spec, shape, rng, fill, (smallest, largest))
    # Rounding to a narrower type can reach `high` itself, which is outside the range.
    return np.clip(values, smallest, largest).astype(dtype)


def _float_range(spec: TensorSpec, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Smallest and largest valid value; infinite where unbounded."""
    smallest, largest = -np.inf, np.inf
    if spec.low is not None:
        rounded = np.asarray(spec.low, dtype)
        smallest = float(
            rounded if float(rounded) >= spec.low else np.nextafter(rounded, _up(dtype))
        )
    if spec.high is not None:
        rounded = np.asarray(spec.high, dtype)
        largest = float(
            rounded if float(rounded) < spec.high else np.nextafter(rounded, -_up(dtype))
        )
    _require(smallest <= largest, spec)
    return smallest, largest


def _up(dtype: np.dtype[Any]) -> Any:
    return np.asarray(np.inf, dtype)


def _float_values(
    spec: TensorSpec,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    fill: Fill,
    bounds: tuple[float, float],
) -> _Array:
    smallest, largest = bounds
    constant = {"zeros": 0.0, "smallest": smallest, "largest": largest}.get(fill, np.inf)
    if np.isfinite(constant):
        return np.full(shape, constant)
    if spec.low is not None and spec.high is not None:
        if fill == "large":
            return np.where(rng.random(shape) < 0.5, smallest, largest)
        return smallest + (largest - smallest) * rng.random(shape)
    values = rng.standard_normal(shape) * (_LARGE if fill == "large" else 1.0)
    if spec.low is not None:
        return smallest + np.abs(values)
    if spec.high is not None:
        return largest - np.abs(values)
    return values


def _require(valid: bool, spec: TensorSpec) -> None:
    if not valid:
        raise RecipeError(
            f"input {spec.name!r} has no valid {spec.dtype} value in the range"
            f" [{spec.low}, {spec.high})",
            hint="low is inclusive, high is exclusive",
        )
