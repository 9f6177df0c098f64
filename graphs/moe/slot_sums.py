"""The weighted sum over each token's slots, and weights in an operator's own order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.moe.blocks import ExpertBlock
from graphs.moe.slabs import Slab

__all__ = ["Arrangement", "arranged", "replace_sum", "sum_of_slots"]

_MOVES = {"Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze", "Expand"}

Arrangement = Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]


def sum_of_slots(block: ExpertBlock) -> tuple[ir.Value, ir.Value] | None:
    """The value [T, H] that sums each token's slots, and the weights [T, k] that it sums by.

    None where what follows the block is anything but ``ReduceSum(slots * weights, 1)``.
    """
    value, weights = block.output, None
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return None
        node, place = uses[0].node, uses[0].idx
        if node.op_type == "Mul" and weights is None:
            other = node.inputs[1 - place]
            weights = None if other is None else _moved(other)
            if weights is None:
                return None
        elif node.op_type == "ReduceSum" and weights is not None:
            return (node.outputs[0], weights) if _over_slots(node) else None
        elif node.op_type not in _MOVES:
            return None
        value = node.outputs[0]


def _over_slots(node: ir.Node) -> bool:
    axes = None if len(node.inputs) < 2 or node.inputs[1] is None else node.inputs[1]
    tensor = None if axes is None else ir.convenience.get_const_tensor(axes)
    alone = tensor is not None and tensor.numpy().tolist() == [1]
    return alone and not node.attributes.get_int("keepdims", 1)


def _moved(value: ir.Value) -> ir.Value:
    """What a value is another shape of."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def replace_sum(total: ir.Value, result: ir.Value, graph: ir.Graph) -> None:
    """Readers of the sum read ``result``, which takes over its name."""
    total.replace_all_uses_with(result, replace_graph_outputs=True)
    last = total.producer()
    assert last is not None
    name = total.name
    graph.remove(last, safe=True)
    result.name = name


def arranged(
    slab: Slab, label: str, sizes: list[int], arrangement: Arrangement, graph: ir.Graph
) -> ir.Value:
    """An initializer of the same numbers in another order, made when the graph is saved.

    Args:
        slab: Where the weights lie.
        label: What the arrangement is called; weights arranged twice alike are one initializer.
        sizes: The shape of the result.
        arrangement: Of the slab's array as it is stored.
        graph: Whose initializer it becomes.
    """
    name = f"{slab.value.name}.{label}"
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = slab.value.const_value
    assert tensor is not None
    made = ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(tensor.dtype))

    def make() -> ir.TensorProtocol:
        array = np.ascontiguousarray(arrangement(tensor.numpy()))
        return ir.Tensor(array, dtype=tensor.dtype, name=name)

    made.const_value = ir.LazyTensor(make, tensor.dtype, ir.Shape(sizes), name=name)
    graph.register_initializer(made)
    return made
