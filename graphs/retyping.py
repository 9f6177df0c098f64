"""Change the type that nodes compute in, with casts at the borders and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphs.halves import Halves
from graphs.origin import MEMBER

__all__ = ["lift_float_constants", "retype"]

_KEYS = (MEMBER, "module")


def lift_float_constants(graph: ir.Graph) -> None:
    """Make float32 ``Constant`` nodes of the graph initializers, which can be converted."""
    for node in list(graph):
        value = node.outputs[0] if node.op_type == "Constant" else None
        if value is None or value.is_graph_output():
            continue
        tensor = _constant(node)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        lifted = ir.Value(
            name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
        )
        lifted.const_value = tensor
        value.replace_all_uses_with(lifted)
        graph.remove(node, safe=True)
        graph.register_initializer(lifted)


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    name = node.outputs[0].name
    for key, attribute in node.attributes.items():
        if key == "value":
            return attribute.as_tensor()
        if key in {"value_float", "value_floats"}:
            return ir.tensor(np.array(attribute.value, np.float32), name=name)
    return None


def retype(graph: ir.Graph, lowered: Sequence[ir.Node], halves: Halves, *, io: bool) -> None:
    """Give ``lowered`` nodes inputs and outputs of half precision, and all others float32.

    Args:
        graph: The graph; its float32 constants are initializers.
        lowered: Nodes for which every float32 input may be converted.
        halves: The type.
        io: Whether inputs and outputs of the graph become half precision too.
    """
    work = _Retyping(graph, set(lowered), halves)
    values = [v for v in (*graph.inputs, *(o for n in graph for o in n.outputs)) if _is_float(v)]
    for value in list(graph.initializers.values()):
        if _is_float(value) and not value.is_graph_input():
            work.convert(value)
    for value in values:
        made = value.producer()
        if made in work.lowered or (made is None and io):
            value.type = ir.TensorType(halves.type)
    for value in values:
        work.connect(value)
    for index, value in enumerate(list(graph.outputs)):
        if value in values:
            graph.outputs[index] = work.named(value, halves.type if io else ir.DataType.FLOAT)


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


class _Retyping:
    def __init__(self, graph: ir.Graph, lowered: set[ir.Node], halves: Halves) -> None:
        self.graph, self.lowered, self.halves = graph, lowered, halves
        self._casts: dict[ir.Value, ir.Value] = {}

    def convert(self, value: ir.Value) -> None:
        """Store a constant in the types its readers want."""
        uses = [(node, index) for node, index in value.uses() if node in self.lowered]
        if not uses:
            return
        tensor = value.const_value
        assert tensor is not None
        half = value
        if len(uses) < len(value.uses()) or value.is_graph_output():
            half = ir.Value(name=f"{value.name}/{self.halves.name}", shape=value.shape)
        half.const_value = self.halves.convert(tensor, str(half.name))
        half.type = ir.TensorType(self.halves.type)
        if half is not value:
            self.graph.register_initializer(half)
            for node, index in uses:
                node.replace_input_with(index, half)

    def connect(self, value: ir.Value) -> None:
        """Give every reader the type it wants; nodes of bodies want float32."""
        for node, index in list(value.uses()):
            wanted = self.halves.type if node in self.lowered else ir.DataType.FLOAT
            if value.dtype != wanted:
                node.replace_input_with(index, self._cast(value, wanted))

    def named(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """The output of the graph: the value, or its cast under the value's name."""
        if value.dtype == wanted:
            return value
        assert value.dtype is not None
        cast, name = self._cast(value, wanted), value.name
        value.name = f"{name}/{self.halves.name if wanted == ir.DataType.FLOAT else 'float32'}"
        cast.name = name
        return cast

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """One cast of a value for all its readers."""
        if value not in self._casts:
            name = f"{value.name}/{'float32' if wanted == ir.DataType.FLOAT else self.halves.name}"
            output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
            node = ir.node("Cast", [value], {"to": wanted.value}, outputs=[output], name=name)
            made = value.producer()
            if made is None:
                self.graph.insert_before(self.graph[0], node)
            else:
                node.metadata_props.update(
                    {key: made.metadata_props[key] for key in _KEYS if key in made.metadata_props}
                )
                self.graph.insert_after(made, node)
            self._casts[value] = output
        return self._casts[value]
