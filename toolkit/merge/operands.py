"""The tensors of one output, read in chunks of all models at once, and the place of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.kernels import BLOCK, first_nonfinite, gram, inner_products
from toolkit.merge.kernels.philox import SPAN
from toolkit.merge.kernels.sums import round_into
from toolkit.merge.tensors import STORED, Sink, Tensor, convert, elements, work_dtype

__all__ = ["Operands", "Scratch"]

Array = npt.NDArray[Any]

# Bytes of all rows of a chunk, and the most elements in one: more brought nothing, and this much
# per thread stays well under the memory bound for any number of models.
CHUNK_BYTES = 12 << 20
CHUNK_ELEMENTS = 1 << 19
# Larger tensors give their diagnostics on every sixteenth block.
SAMPLED_FROM = 1 << 20
STRIDE = 16


def _ignore(_bytes: int) -> None:
    return


class Scratch:
    """Arrays that are used again: one thread's buffers, each as large as it ever had to be."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array; it lives until the next call with this ``purpose``."""
        size = elements(shape) * int(np.dtype(dtype).itemsize)
        if purpose not in self._memory or self._memory[purpose].size < size:
            self._memory[purpose] = np.empty(size, np.uint8)
        array: Array = self._memory[purpose][:size].view(dtype).reshape(shape)
        return array


@dataclass
class Operands:
    """The inputs of one output tensor and where it goes.

    Attributes:
        name: The output tensor's name.
        tensors: Base first where the method has one, then the models; equal shapes.
        labels: What to call each of them in messages.
        dtype: Format of the output, one of ``FLOATS``.
        sink: Receives the output.
        relative: Whether ``tensors[0]`` is a base and inner products are those of task vectors.
        chunk: Most elements in a chunk; results do not depend on it.
        advance: Told the bytes of input that were read for the first time.
        scratch: The memory of the thread this runs in.
    """

    name: str
    tensors: Sequence[Tensor]
    labels: Sequence[str]
    dtype: str
    sink: Sink
    relative: bool = False
    chunk: int = CHUNK_ELEMENTS
    advance: Callable[[int], None] = _ignore
    scratch: Scratch = field(default_factory=Scratch)
    products: Array = field(init=False)
    exact: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.products = np.zeros((len(self.tensors), len(self.tensors), BLOCK))
        self._work = work_dtype(self.tensors)
        self._seen = False
        self._kept: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every tensor here."""
        return self.tensors[0].shape

    @property
    def size(self) -> int:
        """Elements of each tensor."""
        return elements(self.shape)

    @property
    def _stride(self) -> int:
        return STRIDE if self.size > SAMPLED_FROM and not self.exact else 1

    @property
    def scale(self) -> float:
        """What norms of the sampled blocks are multiplied by to be those of the tensor."""
        blocks = -(-self.size // BLOCK)
        return math.sqrt(blocks / max(-(-blocks // self._stride), 1)) if blocks else 1.0

    @property
    def row(self) -> int:
        """Elements of one row, where a tensor is seen as a matrix ``[shape[0], rest]``."""
        return self.size if len(self.shape) < 2 else math.prod(self.shape[1:])

    def chunks(self, *, whole_rows: bool = False) -> Iterator[tuple[int, Array]]:
        """Every range of elements in order, as (start, ``[tensors, elements]``).

        The first pass looks for NaN and infinity and adds up the inner products. The array is
        overwritten by the next chunk.

        Args:
            whole_rows: End each chunk at the end of a row.

        Raises:
            MergeError: If an input is not finite.
        """
        step = self._step(whole_rows)
        for start in range(0, self.size, step):
            rows = self._read(start, min(step, self.size - start))
            if not self._seen:
                self._look(start, rows)
            yield start, rows
        self._seen = True

    def _step(self, whole_rows: bool) -> int:
        width = len(self.tensors) * np.dtype(self._work).itemsize
        step = min(self.chunk, CHUNK_BYTES // width)
        if whole_rows and self.size:
            return int(max(step // self.row, 1) * self.row)
        return int(max(step // SPAN, 1) * SPAN)

    def _read(self, start: int, count: int) -> Array:
        if self._kept is not None:
            return self._kept
        rows = self.scratch.array("rows", (len(self.tensors), count), self._work)
        for row, tensor in zip(rows, self.tensors, strict=True):
            self._read_row(tensor, start, row)
        if count == self.size:
            self._kept = rows
        return rows

    def _read_row(self, tensor: Tensor, start: int, row: Array) -> None:
        stored = np.dtype(STORED[tensor.dtype])
        if stored == self._work:
            tensor.read(start, row)
        else:
            values = self.scratch.array("stored", (row.size,), stored)
            tensor.read(start, values)
            convert(values, tensor.dtype, row)
        if not self._seen:
            self.advance(row.size * stored.itemsize)

    def _look(self, start: int, rows: Array) -> None:
        for row, label in zip(rows, self.labels, strict=True):
            index = first_nonfinite(row)
            if index >= 0:
                raise self._not_finite(label, start + index)
        if not self.exact:
            gram(rows, self.relative, start // BLOCK, self._stride, self.products)

    def _not_finite(self, label: str, index: int) -> MergeError:
        place = [int(i) for i in np.unravel_index(index, self.shape or (1,))]
        return MergeError(
            f"{label}: tensor {self.name!r} holds NaN or Inf at {place}, and finite weights were "
            "wanted",
            hint="training diverged or the file is damaged; use an earlier checkpoint",
        )

    def inner_products(self) -> Array:
        """All inner products, exact to float64, ``float64[tensors, tensors]``, in one pass."""
        self.exact = True
        self.products[:] = 0
        for start, rows in self.chunks():
            gram(rows, self.relative, start // BLOCK, 1, self.products)
        return self.symmetric()

    def symmetric(self) -> Array:
        """The inner products so far as a full matrix."""
        return np.asarray(inner_products(self.products))

    def buffer(self, count: int) -> Array:
        """An array for ``count`` results, of the type ``emit`` takes; the next call reuses it."""
        dtype = np.float64 if self.dtype == "F16" else STORED[self.dtype]
        return self.scratch.array("result", (count,), dtype)

    def widened(self, rows: Array) -> Array:
        """A chunk as float64, for methods written in NumPy."""
        if rows.dtype == np.uint16:
            single = np.empty(rows.shape, np.float32)
            convert(rows, "BF16", single)
            rows = single
        return rows.astype(np.float64)

    def emit_rounded(self, start: int, values: Array) -> None:
        """Round float64 results once and hand them over."""
        out = self.buffer(values.size)
        round_into(np.ascontiguousarray(values).reshape(-1), out)
        self.emit(start, out)

    def emit(self, start: int, values: Array) -> None:
        """Hand over results from element ``start`` on.

        Raises:
            MergeError: If a result does not fit into the output format.
        """
        if self.dtype == "F16":
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
        wide = values.astype(np.float32) if self.dtype == "F16" else values
        index = first_nonfinite(wide)
        if index >= 0:
            raise MergeError(
                f"tensor {self.name!r}: result {start + index} does not fit into {self.dtype}",
                hint="set out_dtype to bfloat16 or float32",
            )
        self.sink.write(start, values)
