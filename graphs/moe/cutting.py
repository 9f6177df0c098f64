"""One layer of experts as a model of its own, to measure its lowerings by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphs import store
from graphs.branching import Additions
from graphs.contracts import DOMAIN, VERSION
from graphs.dims import Dim, dims_of
from graphs.errors import GraphError
from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ready_blocks
from graphs.moe.routing import dispatched, operator
from graphs.passes.base import Pass

__all__ = ["cut_experts"]

_TOKENS = "tokens"


def cut_experts(path: Path, name: str, out: Path, first: Sequence[Pass] = ()) -> None:
    """Write one layer alone: ``x`` [T, D] and ``logits`` [T, E] in, ``y`` [T, U] out.

    Gating and the weighted sum are ours, softmax normalised over the chosen, whatever the model's
    are: what is measured by them is the experts. A layer that reads a row for every slot, as the
    last of experts of attention, takes ``ids`` [T, k] and gives ``y`` [T * k, U].

    Args:
        path: An ONNX file, which is only read.
        name: Of the layer, as ``expert_layers`` has it.
        out: The file to write.
        first: Passes that are applied in memory before, as to ``expert_layers``.

    Raises:
        GraphError: If the file cannot be used or has no such layer.
    """
    model = store.load(path)
    for step in first:
        step.apply(model)
    blocks, _ = ready_blocks(model.graph)
    block = next((block for block in blocks if block.name == name), None)
    if block is None:
        raise GraphError(f"{path} has no layer of experts {name!r}")
    store.save(_cut(block, model), out)


def _cut(block: ExpertBlock, model: ir.Model) -> ir.Model:
    graph = model.graph
    x, ids = _like(block.x, "x"), _like(block.ids, "ids")
    block.x.replace_all_uses_with(x)
    block.ids.replace_all_uses_with(ids)
    slots = block.output
    slots.replace_all_uses_with(ir.Value(name="unread"), replace_graph_outputs=True)
    slots.name = "slots"
    nodes = [*_helpers(block, graph), *block.nodes]
    read = {value for node in nodes for value in node.inputs if value is not None}
    constants = [value for value in graph.initializers.values() if value in read]
    for value in constants:
        del graph.initializers[str(value.name)]
    graph.remove(nodes)
    imports = {"": graph.opset_imports[""], DOMAIN: VERSION}
    part = ir.Graph([x], [], nodes=nodes, initializers=constants, opset_imports=imports, name="cut")
    called = {node.op_identifier() for node in nodes}
    functions = [model.functions[key] for key in model.functions if key in called]
    alone = ir.Model(part, ir_version=store.IR_VERSION, functions=functions)
    if block.top_k is not None and block.spread == block.top_k:
        part.outputs.append(_summed(slots, _gated(ids, block, alone), block.top_k, part))
    else:
        part.inputs.append(ids)
        slots.name = "y"
        part.outputs.append(slots)
    part.sort()
    return alone


def _helpers(block: ExpertBlock, graph: ir.Graph) -> list[ir.Node]:
    """Nodes that give what the block's read and that read constants alone: transposed weights."""
    read = {value for node in block.nodes for value in node.inputs if value is not None}
    made = {value for node in block.nodes for value in node.outputs}
    before = {value.producer() for value in read - made}
    return [node for node in graph if node in before]


def _gated(ids: ir.Value, block: ExpertBlock, model: ir.Model) -> ir.Value:
    """The weights [T, k] of a gating node that gives ``ids``."""
    count, top_k = block.num_experts, block.top_k or 1
    logits = ir.Value(
        name="logits", shape=ir.Shape([_TOKENS, count]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    model.graph.inputs.append(logits)
    weights = ir.Value(
        name="weights", shape=ir.Shape([_TOKENS, top_k]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    outputs = [weights, ids, *dispatched("gating", count)]
    node = operator("TopKGating", [logits], outputs, model, "gating", num_experts=count, k=top_k)
    model.graph.append(node)
    return weights


def _summed(slots: ir.Value, weights: ir.Value, top_k: int, graph: ir.Graph) -> ir.Value:
    assert slots.shape is not None
    assert slots.dtype is not None
    wide, kind = dims_of(slots.shape)[1], slots.dtype
    added = Additions(graph, "sum")
    cube = added.constant("cube", np.array([-1, top_k, wide], np.int64))
    last = added.constant("last", np.array([-1], np.int64))
    first = added.constant("first", np.array([1], np.int64))
    apart = added.node("apart", "Reshape", [slots, cube], kind, [_TOKENS, top_k, wide])
    column = added.node(
        "column", "Unsqueeze", [weights, last], weights.dtype or kind, [_TOKENS, top_k, 1]
    )
    if kind != ir.DataType.FLOAT:
        column = added.node("narrow", "Cast", [column], kind, [_TOKENS, top_k, 1], to=int(kind))
    weighed = added.node("weighed", "Mul", [apart, column], kind, [_TOKENS, top_k, wide])
    total = added.node("total", "ReduceSum", [weighed, first], kind, [_TOKENS, wide], keepdims=0)
    total.name = "y"
    return total


def _like(value: ir.Value, name: str) -> ir.Value:
    dims: list[Dim] = [f"{name}_rows"]
    dims += dims_of(value.shape)[1:] if value.shape is not None else []
    return ir.Value(name=name, shape=ir.Shape(dims), type=value.type)
