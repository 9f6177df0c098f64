"""The ways in which an export lays a PyTorch tensor down in a graph, to be done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Variant", "as_array", "digest_of", "laid_down", "ways"]

Kind = Literal["same", "swapped", "plus one", "interleaved"]
_KINDS: tuple[Kind, ...] = ("same", "swapped", "plus one", "interleaved")
_Array = npt.NDArray[Any]
_WIDE = np.dtype(np.float32)
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))

_TYPES = {dtype.name: dtype for dtype in _HALVES}  # NumPy knows one of them by no name


@dataclass(frozen=True)
class Variant:
    """What was done to a tensor.

    Attributes:
        kind: ``same`` bytes (of whatever shape); the last two axes ``swapped``; ``plus one``, as
            norms with weights around 0 are folded; or ``interleaved``: the first and the second
            half of the rows of every expert in turn.
        expert: The place along the first axis that was taken; None is the whole tensor.
        dtype: What it was cast to, numpy's name.
    """

    kind: Kind
    expert: int | None
    dtype: str

    def __str__(self) -> str:
        part = "" if self.expert is None else f"expert {self.expert}, "
        return f"{part}{self.kind}, {self.dtype}"


def as_array(tensor: torch.Tensor) -> _Array:
    """The tensor's values in numpy; bfloat16 as ``ml_dtypes`` has it."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        bits: _Array = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: _Array = tensor.numpy()
    return array


def digest_of(array: _Array) -> bytes:
    """A hash of the bytes in row-major order; the shape is no part of it."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return hashlib.sha256(flat.data).digest()


def ways(
    array: _Array, wanted: set[tuple[str, int]], experts: set[int]
) -> Iterator[tuple[Variant, _Array]]:
    """Every variant of a tensor whose type and number of bytes are wanted.

    Args:
        array: The tensor, as it was exported.
        wanted: Types by numpy's name, and numbers of bytes.
        experts: Places along a first axis that were taken alone.
    """
    types = [array.dtype, *(_HALVES if array.dtype == _WIDE else ())]
    for dtype in types:
        whole = array.size * dtype.itemsize
        if (dtype.name, whole) in wanted:
            for kind in _KINDS:
                # Equal numbers look the same every way, and are not what one more stands for.
                if kind == "same" or not _equal(array):
                    yield from _made(Variant(kind, None, dtype.name), array)
        if array.ndim < 2 or not len(array) or (dtype.name, whole // len(array)) not in wanted:
            continue
        for expert in sorted(experts):
            if expert < len(array):
                for kind in _KINDS[:2]:
                    variant = Variant(kind, expert, dtype.name)
                    yield from _made(variant, array)


def _equal(array: _Array) -> bool:
    return array.size > 0 and bool((array == array.flat[0]).all())


def _made(variant: Variant, array: _Array) -> Iterator[tuple[Variant, _Array]]:
    made = laid_down(variant, array)
    if made is not None:
        yield variant, made


def laid_down(variant: Variant, array: _Array) -> _Array | None:
    """A tensor laid down in one way; None where its shape does not have it."""
    found = array if variant.expert is None else array[variant.expert]
    if variant.kind == "swapped":
        if found.ndim < 2:
            return None
        found = found.swapaxes(-1, -2)
    elif variant.kind == "plus one":
        if found.ndim != 1 or found.dtype.kind != "f":
            return None
        found = found + np.ones((), found.dtype)
    elif variant.kind == "interleaved":
        if array.ndim < 2 or array.shape[1] % 2 or array.dtype.kind != "f":
            return None
        half = array.shape[1] // 2
        found = np.stack([array[:, :half], array[:, half:]], axis=2).reshape(array.shape)
    with np.errstate(over="ignore", under="ignore"):
        return found.astype(_TYPES.get(variant.dtype, variant.dtype), copy=False)
