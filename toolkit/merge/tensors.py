"""Where tensors come from and go to: ranges of elements, read and written without holding the rest.

An element format has two NumPy types: how it is stored, and how kernels take it. bfloat16 is
``uint16`` in both; float16 is computed as float32 because kernels have no 16-bit float.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from toolkit.errors import CheckpointError

__all__ = [
    "FLOATS",
    "STORED",
    "ArraySink",
    "ArrayTensor",
    "FileSink",
    "FileTensor",
    "HeaderOnly",
    "NoSink",
    "OpenFiles",
    "Sink",
    "Tensor",
    "convert",
    "elements",
    "work_dtype",
]

Array = npt.NDArray[Any]

FLOATS = ("BF16", "F16", "F32", "F64")
STORED: Mapping[str, Any] = {
    "BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "BOOL": np.uint8, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
    "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64,
}  # fmt: skip


class Tensor(Protocol):
    """A tensor to be read in ranges of its flattened elements."""

    @property
    def dtype(self) -> str:
        """The safetensors name of the element format."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes; empty for a scalar."""

    def read(self, start: int, out: Array) -> None:
        """Fill ``out``, of the stored NumPy type, with the elements from ``start`` on."""


class Sink(Protocol):
    """Receives a tensor in ranges of its flattened elements, each range once, in any order."""

    def write(self, start: int, values: Array) -> None:
        """Store ``values``, of the stored NumPy type, at element ``start`` and after."""


class OpenFiles:
    """File descriptors by path, shared by threads: positional reads need no seek and no lock."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __getitem__(self, path: Path) -> int:
        if path not in self._open:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
            # Another thread may have been faster; the loser's descriptor is closed.
            if self._open.setdefault(path, descriptor) != descriptor:
                os.close(descriptor)
        return self._open[path]

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a safetensors file, ``offset`` bytes from its start."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    files: OpenFiles = field(repr=False, compare=False)

    def read(self, start: int, out: Array) -> None:
        """Read at a position; a short read means that the file was cut after it was planned."""
        view = out.view(np.uint8).data
        position = self.offset + start * out.itemsize
        while view.nbytes:
            try:
                count = os.preadv(self.files[self.path], [view], position)
            except OSError as error:
                raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error
            if count == 0:
                raise CheckpointError(f"{self.path} became shorter while it was read")
            view, position = view[count:], position + count


@dataclass(frozen=True)
class HeaderOnly:
    """A tensor of a merge that is planned and not made."""

    dtype: str
    shape: tuple[int, ...]

    def read(self, start: int, out: Array) -> None:
        """Never called: nothing that is only planned is read."""
        raise AssertionError(f"{self} was read at {start} into {out.size}")


@dataclass(frozen=True)
class ArrayTensor:
    """A tensor in memory: a flat array of the stored type, and the shape it stands for."""

    values: Array = field(repr=False)
    dtype: str
    shape: tuple[int, ...]

    def read(self, start: int, out: Array) -> None:
        """Copy a range."""
        out[:] = self.values[start : start + out.size]


@dataclass(frozen=True)
class FileSink:
    """A place in an output file."""

    descriptor: int
    offset: int

    def write(self, start: int, values: Array) -> None:
        """Write at a position."""
        view = np.ascontiguousarray(values).view(np.uint8).data
        position = self.offset + start * values.itemsize
        while view.nbytes:
            count = os.pwrite(self.descriptor, view, position)
            view, position = view[count:], position + count


@dataclass(frozen=True)
class ArraySink:
    """A flat array in memory."""

    values: Array = field(repr=False)

    def write(self, start: int, values: Array) -> None:
        """Copy into a range."""
        self.values[start : start + values.size] = values


@dataclass(frozen=True)
class NoSink:
    """Stands where nothing is written."""

    def write(self, start: int, values: Array) -> None:
        """Never called: passes that only look emit nothing."""
        raise AssertionError(f"{values.size} elements were written at {start}")


def work_dtype(tensors: Sequence[Tensor]) -> Any:
    """The type kernels take these tensors in: one that holds every value of every one of them."""
    formats = {tensor.dtype for tensor in tensors}
    if formats == {"BF16"}:
        return np.uint16
    return np.float64 if "F64" in formats else np.float32


def convert(values: Array, dtype: str, out: Array) -> None:
    """Widen stored ``values`` of format ``dtype`` into ``out``, float32 or float64."""
    if dtype == "BF16":
        values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
    out[:] = values


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a shape has."""
    return math.prod(shape)
