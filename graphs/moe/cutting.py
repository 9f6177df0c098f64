"""One layer of experts as a model of its own, to measure its lowerings by."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.contracts import DOMAIN, VERSION
from graphs.dims import dims_of
from graphs.errors import GraphError
from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ready_blocks

__all__ = ["cut_experts"]


def cut_experts(path: Path, name: str, out: Path) -> None:
    """Write the experts of one layer: ``x`` [N, D] and ``ids`` [T, k] in, ``y`` [T * k, U] out.

    Raises:
        GraphError: If the file cannot be used or has no such layer.
    """
    model = store.load(path)
    blocks, _ = ready_blocks(model.graph)
    block = next((block for block in blocks if block.name == name), None)
    if block is None:
        raise GraphError(f"{path} has no layer of experts {name!r}")
    store.save(_cut(block, model), out)


def _cut(block: ExpertBlock, model: ir.Model) -> ir.Model:
    graph = model.graph
    read = {value for node in block.nodes for value in node.inputs if value is not None}
    made = {value for node in block.nodes for value in node.outputs}
    # Weights may be seen through a Transpose, small constants through nodes that give them.
    before = [v.producer() for v in read - made - {block.x, block.ids}]
    helpers = [node for node in graph if node in before]
    read |= {value for node in helpers for value in node.inputs if value is not None}
    constants = [value for value in graph.initializers.values() if value in read]
    x = _input("x", block.x)
    ids = _input("ids", block.ids)
    block.x.replace_all_uses_with(x)
    block.ids.replace_all_uses_with(ids)
    nodes = [*helpers, *block.nodes]
    output = block.output
    output.replace_all_uses_with(ir.Value(name="unread"), replace_graph_outputs=True)
    output.name = "y"
    for value in constants:
        del graph.initializers[str(value.name)]
    graph.remove(nodes)
    part = ir.Graph(
        [x, ids],
        [output],
        nodes=nodes,
        initializers=constants,
        opset_imports={"": graph.opset_imports[""], DOMAIN: VERSION},
        name="experts",
    )
    called = {node.op_identifier() for node in nodes}
    functions = [model.functions[key] for key in model.functions if key in called]
    return ir.Model(part, ir_version=store.IR_VERSION, functions=functions)


def _input(name: str, value: ir.Value) -> ir.Value:
    dims = [name + "_rows", *dims_of(value.shape)[1:]] if value.shape is not None else None
    return ir.Value(name=name, shape=None if dims is None else ir.Shape(dims), type=value.type)
