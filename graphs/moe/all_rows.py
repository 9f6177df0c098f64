"""Every expert on as many rows as it could get: shapes that no choice changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import dims_of
from graphs.moe.blocks import ExpertBlock, is_expert_linear
from graphs.moe.experts import Experts, copy_node
from graphs.moe.places import expert_of_slot, joined, source_of_slot, taken
from graphs.moe.routing import dispatch_of
from graphs.moe.slabs import Slabs, slab_of

__all__ = ["to_batched", "to_dense"]

_INT = ir.DataType.INT64


def to_dense(block: ExpertBlock, model: ir.Model, slabs: Slabs) -> ir.Value:
    """Every expert runs on every row of ``x``, and each slot takes the one it chose."""
    added = Additions(model.graph, f"{block.name}/experts")
    experts, computed = Experts(block, slabs), []
    for expert in range(block.num_experts):
        made = experts.of(expert, block.x)
        model.graph.extend(made.nodes)
        computed.append(made.output)
    height = added.node("height", "Shape", [block.x], _INT, [1], start=0, end=1)
    first = added.node("first", "Mul", [expert_of_slot(block, added), height], _INT, [None])
    place = added.node("place", "Add", [first, source_of_slot(block, added)], _INT, [None])
    return taken(joined(computed, added), place, added, "slots")


def to_batched(block: ExpertBlock, model: ir.Model, slabs: Slabs) -> ir.Value:
    """One batched MatMul over a table [E, C] of rows, C being how many rows ``x`` has.

    An expert cannot get more, so nothing is dropped; cells that no slot needs hold row 0 and are
    never read.
    """
    del slabs  # the weights of all experts stay together
    added = Additions(model.graph, f"{block.name}/experts")
    cell, table = _table(block, model, added)
    mapped = {block.x: taken(block.x, table, added, "rows")}
    for node in block.nodes:
        if is_expert_linear(node):
            mapped[node.outputs[0]] = _linear(node, mapped, model.graph)
        else:
            model.graph.append(copy_node(node, mapped, "batched"))
    return taken(mapped[block.output], cell, added, "slots")


def _table(block: ExpertBlock, model: ir.Model, added: Additions) -> tuple[ir.Value, ir.Value]:
    """The cell of each slot, [T * k], and the row of ``x`` in each cell, [E * C]."""
    dispatch = dispatch_of(block.ids, block.num_experts, model)
    capacity = added.node("capacity", "Shape", [block.x], _INT, [1], start=0, end=1)
    expert = expert_of_slot(block, added)
    start = added.node("start", "Gather", [dispatch.offsets, expert], _INT, [None], axis=0)
    nth = added.node("nth", "Sub", [dispatch.row_of_slot, start], _INT, [None])
    first = added.node("first", "Mul", [expert, capacity], _INT, [None])
    cell = added.node("cell", "Add", [first, nth], _INT, [None])
    experts = added.constant("experts", np.array([block.num_experts], np.int64))
    cells = added.node("cells", "Mul", [experts, capacity], _INT, [1])
    zero = ir.tensor(np.zeros(1, np.int64))
    empty = added.node("empty", "ConstantOfShape", [cells], _INT, [None], value=zero)
    inputs = [empty, cell, source_of_slot(block, added)]
    return cell, added.node("table", "ScatterElements", inputs, _INT, [None], axis=0)


def _linear(node: ir.Node, mapped: dict[ir.Value, ir.Value], graph: ir.Graph) -> ir.Value:
    """[E * C, D] to [E * C, U] through [E, C, D] @ [E, D, U]."""
    x, _, weight, *biases = node.inputs
    assert x is not None
    assert weight is not None
    slab = slab_of(weight)
    assert slab is not None
    matrices, kind = slab.value, slab.value.dtype
    assert matrices.shape is not None
    assert kind is not None
    count, *sides = dims_of(matrices.shape)
    wide, high = sides if slab.transposed else reversed(sides)
    added = Additions(graph, f"{node.name}/batched")
    if not slab.transposed:
        dims = [count, wide, high]
        matrices = added.node("matrices", "Transpose", [matrices], kind, dims, perm=(0, 2, 1))
    cubes = added.constant("cubes", np.array([count, -1, wide], np.int64))
    rows = added.node("rows", "Reshape", [mapped[x], cubes], kind, [count, None, wide])
    product = added.node("product", "MatMul", [rows, matrices], kind, [count, None, high])
    for bias in biases:
        assert bias is not None
        axis = added.constant("axis", np.array([1], np.int64))
        column = added.node("bias", "Unsqueeze", [bias, axis], kind, [count, 1, high])
        product = added.node("sum", "Add", [product, column], kind, [count, None, high])
    flat = added.constant("flat", np.array([-1, high], np.int64))
    return added.node("y", "Reshape", [product, flat], kind, [None, high])
