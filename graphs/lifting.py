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
from graphs.float_types import change_constants, change_types
from graphs.inlining import inline_functions
from graphs.tensors import nodes_of, values_of

__all__ = ["lift"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


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
    change_types(node, _FLOATS, ir.DataType.DOUBLE)
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1)))
    else:
        change_constants(node, _FLOATS, lambda array: array.astype(np.float64))
