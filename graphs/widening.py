"""A graph in half precision as float32 would compute it, and what half precision does to constants.

Rounding of half precision hides small defects of a graph. The same file computed in float32 has
its weights and constants as they ship and none of that rounding, and it runs where half precision
has no kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.inlining import inline_functions
from graphs.tensors import nodes_of, values_of

__all__ = ["round_constants", "widen"]

_HALVES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
_LARGEST = {"float16": 65504.0, "bfloat16": 2.0**128 - 2.0**120}
_NUMPY: dict[str, npt.DTypeLike] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

_Array = npt.NDArray[Any]


def widen(src: Path, out: Path) -> None:
    """Write the graph of ``src`` with everything in half precision, casts included, in float32.

    Raises:
        GraphError: If the model cannot be read or written.
    """
    model = _flat(src)
    for node in nodes_of(model):
        for name in _TYPE_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is not None and ir.DataType(attribute.as_int()) in _HALVES:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT.value)
    _convert(model, _HALVES, lambda array: array.astype(np.float32))
    for value in values_of(model):
        if value.dtype in _HALVES:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    store.save(model, out)


def round_constants(src: Path, out: Path, precision: Literal["float16", "bfloat16"]) -> None:
    """Write the float32 graph of ``src`` with weights and constants rounded to ``precision``.

    Raises:
        GraphError: If the model cannot be read or written.
    """
    half, model = _NUMPY[precision], _flat(src)

    largest = _LARGEST[precision]

    def rounded(array: _Array) -> _Array:
        # What is too large for float16 becomes infinite there, and its largest value in an export.
        finite = np.isfinite(array)
        clipped = np.where(finite, np.clip(array, -largest, largest), array)
        wide: _Array = clipped.astype(half).astype(np.float32)
        return wide

    _convert(model, {ir.DataType.FLOAT}, rounded)
    store.save(model, out)


def _flat(src: Path) -> ir.Model:
    model = store.load(src)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    inline_functions(model)
    return model


def _convert(model: ir.Model, dtypes: set[ir.DataType], change: Callable[[_Array], _Array]) -> None:
    """Change weights of ``dtypes``, one at a time when they are written, and constants."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in dtypes:
            value.const_value = ir.LazyTensor(
                partial(_changed, tensor, change),
                dtype=ir.DataType.FLOAT,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name,
            )
    for node, name, attribute in _constants(model):
        array = _content(attribute)
        if array is not None and array[1] in dtypes:
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(change(array[0])))


def _changed(tensor: ir.TensorProtocol, change: Callable[[_Array], _Array]) -> ir.TensorProtocol:
    return ir.tensor(change(tensor.numpy()), name=tensor.name)


def _constants(model: ir.Model) -> Iterator[tuple[ir.Node, str, ir.Attr]]:
    for node in nodes_of(model):
        if node.op_type in {"Constant", "ConstantOfShape"} and not node.domain:
            yield from ((node, name, a) for name, a in list(node.attributes.items()))


def _content(attribute: ir.Attr) -> tuple[_Array, ir.DataType] | None:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return tensor.numpy(), tensor.dtype
    if attribute.type == ir.AttributeType.FLOAT:
        return np.array(attribute.as_float(), np.float32), ir.DataType.FLOAT
    if attribute.type == ir.AttributeType.FLOATS:
        return np.array(attribute.as_floats(), np.float32), ir.DataType.FLOAT
    return None
