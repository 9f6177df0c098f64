"""Experts one by one on the rows they get: sorted once, sliced, and put back slot by slot."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions, choice
from graphs.dims import dims_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ExpertNodes, Experts
from graphs.moe.places import joined, source_of_row, taken
from graphs.moe.routing import Dispatch, dispatch_of
from graphs.moe.slabs import Slabs

__all__ = ["to_conditionals", "to_rows"]


def to_rows(block: ExpertBlock, model: ir.Model, slabs: Slabs) -> ir.Value:
    """Every expert runs on the rows it gets, be they none."""
    rows = _Rows(block, model, slabs)
    for expert, given in enumerate(rows.given):
        made = rows.experts.of(expert, given)
        model.graph.extend(made.nodes)
        rows.computed.append(made.output)
    return rows.gathered()


def to_conditionals(block: ExpertBlock, model: ir.Model, slabs: Slabs) -> ir.Value:
    """An expert with rows runs behind an ``If``; one without gives its empty rows as they are.

    What TensorRT asks of an ``If`` holds: slices stand outside, both branches give [n, D], their
    outputs have names of their own, there is one level, and weights stay in the main graph.
    """
    rows = _Rows(block, model, slabs)
    flags = rows.added.split("active", rows.dispatch.active, block.num_experts)
    for expert, given in enumerate(rows.given):
        made = rows.experts.of(expert, given)
        chosen = _conditional(made, given, flags[expert], f"{block.name}/{expert}")
        model.graph.append(chosen)
        rows.computed.append(chosen.outputs[0])
    return rows.gathered()


def _conditional(made: ExpertNodes, given: ir.Value, flag: ir.Value, stem: str) -> ir.Node:
    shape, kind = made.output.shape, made.output.type
    idle = ir.Value(name=f"{stem}/idle", shape=shape, type=kind)
    same = ir.node("Identity", [given], outputs=[idle], name=str(idle.name))
    then = ir.Graph([], [made.output], nodes=made.nodes, name=f"{stem}/then")
    otherwise = ir.Graph([], [idle], nodes=[same], name=f"{stem}/else")
    result = ir.Value(name=f"{stem}/rows", shape=shape, type=kind)
    chosen = choice(flag, then, otherwise, [result], f"{stem}/if")
    chosen.metadata_props.update(made.nodes[-1].metadata_props)
    return chosen


class _Rows:
    """The rows of ``x`` sorted by expert and sliced, and the way back to slots."""

    def __init__(self, block: ExpertBlock, model: ir.Model, slabs: Slabs) -> None:
        self.experts = Experts(block, slabs)
        self.dispatch: Dispatch = dispatch_of(block.ids, block.num_experts, model)
        self.added = Additions(model.graph, f"{block.name}/experts")
        self.computed: list[ir.Value] = []
        self.given = self._slices(block)

    def _slices(self, block: ExpertBlock) -> list[ir.Value]:
        added, x = self.added, block.x
        assert x.shape is not None
        assert x.dtype is not None
        ordered = taken(x, source_of_row(block, self.dispatch, added), added, "ordered")
        bounds = added.split("offset", self.dispatch.offsets, block.num_experts + 1)
        axis = added.constant("axis", np.array([0], np.int64))
        dims = [None, *dims_of(x.shape)[1:]]
        return [
            added.node(f"rows_{expert}", "Slice", [ordered, start, end, axis], x.dtype, dims)
            for expert, (start, end) in enumerate(pairwise(bounds))
        ]

    def gathered(self) -> ir.Value:
        """What experts computed, slot by slot."""
        rows = joined(self.computed, self.added)
        return taken(rows, self.dispatch.row_of_slot, self.added, "slots")
