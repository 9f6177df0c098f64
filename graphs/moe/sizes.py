"""Bounds of slices that an exporter computes of sizes that never change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.dims import dims_of
from graphs.moe.row_wise import constant_of

__all__ = ["settle_slices"]

_DEEP = 12


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


def _constant(name: str, array: npt.NDArray[np.int64], graph: ir.Graph) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.INT64))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value


def _known(value: ir.Value, depth: int) -> npt.NDArray[np.int64] | None:
    tensor, node = constant_of(value), value.producer()
    if tensor is not None:
        return tensor.numpy().astype(np.int64) if tensor.size < 9 else None
    if node is None or depth == 0:
        return None
    if node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[1] is not None:
        return _dimension(node.inputs[0].producer(), _known(node.inputs[1], depth - 1))
    read = [None if each is None else _known(each, depth - 1) for each in node.inputs]
    known = [each for each in read if each is not None]
    if len(known) != len(read) or not read:
        return None
    if node.op_type in {"Unsqueeze", "Reshape"} and known[0].size == 1:
        return known[0].reshape(1)
    if node.op_type == "Squeeze" and known[0].size == 1:
        return known[0].reshape(())
    if node.op_type in {"Cast", "Identity"}:
        return known[0]
    if len(known) != 2 or node.op_type not in {"Add", "Sub", "Mul", "Div"}:
        return None
    left, right = known
    if node.op_type == "Div":
        return left // right if right.all() and (left >= 0).all() else None
    return {"Add": left + right, "Sub": left - right, "Mul": left * right}[node.op_type]


def _dimension(
    node: ir.Node | None, index: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64] | None:
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
