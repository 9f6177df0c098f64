"""A graph in float64, for an evaluator that wants to know what the graph means, not what it gives.

Every float is double, whatever the file says, casts included. Weights become inputs, so that the
caller can lift one at a time: a copy of all of them would take twice the memory of the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.inlining import inline_functions
from graphs.tensors import nodes_of, values_of

__all__ = ["lift"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def lift(src: Path, out: Path) -> None:
    """Write the graph of ``src`` in float64, functions inlined, weights as inputs of their names.

    Raises:
        GraphError: If the model cannot be read.
    """
    model = store.load(src)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    inline_functions(model)
    for node in nodes_of(model):
        _lift_node(node)
    for value in values_of(model):
        if value.dtype in _FLOATS:
            value.type = ir.TensorType(ir.DataType.DOUBLE)
    graph = model.graph
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    known = set(graph.inputs)
    for value in weights:
        value.const_value = None
        if value not in known:
            graph.inputs.append(value)
    out.write_bytes(ir.serde.serialize_model(model).SerializeToString())


def _lift_node(node: ir.Node) -> None:
    for name in _TYPE_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None and ir.DataType(attribute.as_int()) in _FLOATS:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.DOUBLE.value)
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1)))
    elif node.op_type in {"Constant", "ConstantOfShape"}:
        _lift_constant(node)


def _lift_constant(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        array = None
        if attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            array = tensor.numpy() if tensor.dtype in _FLOATS else None
        elif attribute.type == ir.AttributeType.FLOAT:
            array = np.array(attribute.as_float())
        elif attribute.type == ir.AttributeType.FLOATS:
            array = np.array(attribute.as_floats())
        if array is not None:
            del node.attributes[name]
            lifted = ir.tensor(array.astype(np.float64))
            node.attributes["value"] = ir.AttrTensor("value", lifted)
