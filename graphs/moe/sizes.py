"""Bounds of slices that an exporter computes of sizes that never change."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.dims import dims_of
from graphs.moe.row_wise import constant_of

__all__ = ["settle_slices"]

_Sizes = npt.NDArray[np.int64]

_DEEP = 12
_ARITHMETIC: Mapping[str, Callable[[_Sizes, _Sizes], _Sizes]] = {
    "Add": operator.add,
    "Div": operator.floordiv,  # of sizes, so nothing is below zero
    "Mul": operator.mul,
    "Sub": operator.sub,
}


def settle_slices(graph: ir.Graph) -> None:
    """Give constants to the slices whose bounds follow from known dimensions.

    TorchScript's exporter writes ``chunk`` as slices up to half of ``Shape(x)[-1]``.
    """
    for node in list(graph):
        if node.op_type != "Slice":
            continue
        for place, value in enumerate(node.inputs[1:], 1):
            if value is None or constant_of(value) is not None:
                continue
            array = _known(value, _DEEP)
            if array is not None:
                node.replace_input_with(place, _constant(f"{node.name}/{place}", array, graph))


def _constant(name: str, array: _Sizes, graph: ir.Graph) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.INT64))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value


def _known(value: ir.Value, depth: int) -> _Sizes | None:
    tensor, node = constant_of(value), value.producer()
    if tensor is not None:
        return tensor.numpy().astype(np.int64) if tensor.size < 9 else None
    if node is None or depth == 0:
        return None
    if node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[1] is not None:
        return _dimension(node.inputs[0].producer(), _known(node.inputs[1], depth - 1))
    read = [None if each is None else _known(each, depth - 1) for each in node.inputs]
    known = [each for each in read if each is not None]
    return _computed(node.op_type, known) if known and len(known) == len(read) else None


def _computed(op_type: str, known: list[_Sizes]) -> _Sizes | None:
    """What the operator makes of one or two arrays of few numbers."""
    first, single = known[0], known[0].size == 1
    if op_type in {"Unsqueeze", "Reshape"} and single:
        result: _Sizes | None = first.reshape(1)
    elif op_type == "Squeeze" and single:
        result = first.reshape(())
    elif op_type in {"Cast", "Identity"}:
        result = first
    elif len(known) == 2 and op_type in _ARITHMETIC:
        result = (
            _ARITHMETIC[op_type](first, known[1]) if min(first.min(), known[1].min()) > 0 else None
        )
    else:
        result = None
    return result


def _dimension(node: ir.Node | None, index: _Sizes | None) -> _Sizes | None:
    """The dimensions at ``index`` of what ``Shape`` reads, if they are fixed."""
    if node is None or node.op_type != "Shape" or index is None or node.inputs[0] is None:
        return None
    if "start" in node.attributes or "end" in node.attributes or node.inputs[0].shape is None:
        return None
    dims = dims_of(node.inputs[0].shape)
    if any(not -len(dims) <= place < len(dims) for place in index.ravel()):
        return None
    chosen = [dims[place] for place in index.ravel()]
    fixed = [dim for dim in chosen if isinstance(dim, int)]
    return np.array(fixed, np.int64).reshape(index.shape) if len(fixed) == len(chosen) else None
