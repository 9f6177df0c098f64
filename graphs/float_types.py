"""Other floats for a graph: the types that nodes name, and the constants that they hold."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["change_constants", "change_types"]

# Attributes that hold a data type: of Cast, of random operators, of quantisation.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")

_Array = npt.NDArray[Any]


def change_types(node: ir.Node, found: Collection[ir.DataType], wanted: ir.DataType) -> None:
    """Let a node that names a type in ``found`` name ``wanted``."""
    for name in _TYPE_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None and ir.DataType(attribute.as_int()) in found:
            node.attributes[name] = ir.AttrInt64(name, wanted.value)


def change_constants(
    node: ir.Node, found: Collection[ir.DataType], change: Callable[[_Array], _Array]
) -> None:
    """Change what a ``Constant`` or ``ConstantOfShape`` holds, if its type is in ``found``."""
    if node.op_type not in {"Constant", "ConstantOfShape"} or node.domain:
        return
    for name, attribute in list(node.attributes.items()):
        array, dtype = _content(attribute)
        if array is not None and dtype in found:
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(change(array)))


def _content(attribute: ir.Attr) -> tuple[_Array | None, ir.DataType]:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return tensor.numpy(), tensor.dtype
    if attribute.type == ir.AttributeType.FLOAT:
        return np.array(attribute.as_float(), np.float32), ir.DataType.FLOAT
    if attribute.type == ir.AttributeType.FLOATS:
        return np.array(attribute.as_floats(), np.float32), ir.DataType.FLOAT
    return None, ir.DataType.UNDEFINED
