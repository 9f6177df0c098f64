"""A graph's inputs and outputs in Triton's terms: data types, dims without the batch, reshapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.artifacts import Shapes
from toolkit.errors import PackageError

if TYPE_CHECKING:
    from graphs import Description, TensorInfo

__all__ = ["TRITON_DTYPES", "Interface", "ServedTensor", "interface_of", "served_tensor"]

# What Triton's onnxruntime backend takes and gives; it has no bfloat16.
TRITON_DTYPES: Mapping[str, str] = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32",
    "int64": "TYPE_INT64", "float16": "TYPE_FP16", "float32": "TYPE_FP32",
    "float64": "TYPE_FP64", "string": "TYPE_STRING",
}  # fmt: skip


@dataclass(frozen=True)
class ServedTensor:
    """One input or output as ``config.pbtxt`` has it.

    Attributes:
        name: The graph's.
        dtype: Triton's name.
        dims: Sizes without the batch, -1 where dynamic.
        scalar: Whether nothing is left beside the batch. Triton wants a dim, so ``dims`` is [1]
            and a reshape takes it away again.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    scalar: bool


@dataclass(frozen=True)
class Interface:
    """What a server has to know about a graph.

    Attributes:
        batch: The name of the batch dimension; None if there is none.
        max_batch_size: The most rows of a batch; 0 where there is no batch dimension, and then
            ``dims`` are whole shapes.
        inputs: In order.
        outputs: In order.
    """

    batch: str | None
    max_batch_size: int
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]


def interface_of(found: Description, shapes: Shapes, *, rows_mix: bool = False) -> Interface:
    """Read it off the graph.

    The first dimension is a batch, which a server may split and join, if it has one name in every
    input and output, one row is allowed, and rows do not change each other's answers.

    Args:
        found: The graph.
        shapes: The ranges of its named dimensions.
        rows_mix: Whether a row's answer was found to depend on the rows beside it.

    Raises:
        PackageError: If a tensor has no shape or a type that Triton's backend does not take.
    """
    tensors = (*found.inputs, *found.outputs)
    batch = None if rows_mix else _batch(tensors, shapes)
    return Interface(
        batch,
        shapes[batch].max if batch else 0,
        tuple(served_tensor(tensor, batch) for tensor in found.inputs),
        tuple(served_tensor(tensor, batch) for tensor in found.outputs),
    )


def _batch(tensors: Iterable[TensorInfo], shapes: Shapes) -> str | None:
    first = {tensor.shape[0] if tensor.shape else None for tensor in tensors}
    name = first.pop() if len(first) == 1 else None
    if not isinstance(name, str) or name not in shapes or shapes[name].min > 1:
        return None
    return name


def served_tensor(tensor: TensorInfo, batch: str | None) -> ServedTensor:
    """One tensor, whose first dimension is the batch if there is one.

    Raises:
        PackageError: If it has no shape, or a type that Triton's backend does not take.
    """
    if tensor.shape is None:
        raise PackageError(
            f"{tensor.name!r} has no shape in the graph, and a server must be told one",
            hint="infer the shapes of the ONNX file and export again",
        )
    if tensor.dtype not in TRITON_DTYPES:
        raise PackageError(
            f"{tensor.name!r} is {tensor.dtype}, which Triton's onnxruntime backend does not take",
            hint="export.io: float32 keeps inputs and outputs in float32",
        )
    shape = tensor.shape[1:] if batch else tensor.shape
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in shape)
    return ServedTensor(tensor.name, TRITON_DTYPES[tensor.dtype], dims or (1,), not dims)
