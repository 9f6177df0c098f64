"""The nodes of a block for one expert, and what all lowerings start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphs.dims import dims_of
from graphs.moe.blocks import ExpertBlock, find_blocks, is_expert_linear
from graphs.moe.slabs import Slab, Slabs, slab_of
from graphs.near_miss import NearMiss

__all__ = ["ExpertNodes", "Experts", "copy_node", "like", "ready_blocks"]


def ready_blocks(graph: ir.Graph) -> tuple[list[ExpertBlock], list[NearMiss]]:
    """The blocks whose weights are constants that experts can have one by one, and near misses."""
    blocks, misses = find_blocks(graph)
    ready = []
    for block in blocks:
        constants = [value for node in block.linears for value in node.inputs[2:]]
        if all(value is not None and slab_of(value) is not None for value in constants):
            ready.append(block)
        else:
            misses.append(NearMiss(block.name, "the weights of its experts are computed"))
    return ready, misses


@dataclass(frozen=True)
class ExpertNodes:
    """What one expert computes.

    Attributes:
        nodes: In graph order, in no graph yet.
        output: [n, U], of the last.
    """

    nodes: list[ir.Node]
    output: ir.Value


@dataclass(frozen=True)
class Experts:
    """The experts of one block."""

    block: ExpertBlock
    slabs: Slabs

    def of(self, expert: int, rows: ir.Value) -> ExpertNodes:
        """What expert ``expert`` computes of ``rows`` [n, D]."""
        mapped: dict[ir.Value, ir.Value] = {self.block.x: rows}
        nodes: list[ir.Node] = []
        for node in self.block.nodes:
            linear = self._linear(node, expert, mapped) if is_expert_linear(node) else None
            nodes.append(copy_node(node, mapped, str(expert), linear))
        return ExpertNodes(nodes, mapped[self.block.output])

    def _linear(
        self, node: ir.Node, expert: int, mapped: dict[ir.Value, ir.Value]
    ) -> tuple[str, list[ir.Value], dict[str, int]]:
        """A linear layer of one expert: Gemm, which reads a matrix either way round."""
        x, _, weight, *biases = node.inputs
        assert x is not None
        assert weight is not None
        slab = slab_of(weight)
        assert slab is not None
        inputs = [mapped[x], self.slabs.parts(slab)[expert]]
        for bias in biases:
            assert bias is not None
            inputs.append(self.slabs.parts(Slab(bias, transposed=False))[expert])
        return "Gemm", inputs, {} if slab.transposed else {"transB": 1}


def copy_node(
    node: ir.Node,
    mapped: dict[ir.Value, ir.Value],
    suffix: str,
    replaced: tuple[str, Sequence[ir.Value], Mapping[str, int]] | None = None,
) -> ir.Node:
    """A row-wise node on other rows, in no graph yet.

    Args:
        node: The node.
        mapped: What stands for the values it reads; learns what stands for its outputs.
        suffix: Names of the copy and its outputs end in this.
        replaced: Operator, inputs and attributes to have instead of the node's own.
    """
    inputs = [value if value is None else mapped.get(value, value) for value in node.inputs]
    outputs = [like(value, f"{value.name}/{suffix}") for value in node.outputs]
    name = f"{node.name}/{suffix}"
    if replaced is None:
        own = node.attributes.values()
        copy = ir.Node("", node.op_type, inputs, own, outputs=outputs, name=name)
    else:
        op_type, others, attributes = replaced
        copy = ir.node(op_type, others, attributes, outputs=outputs, name=name)
    copy.metadata_props.update(node.metadata_props)
    mapped.update(zip(node.outputs, outputs, strict=True))
    return copy


def like(value: ir.Value, name: str) -> ir.Value:
    """A value of the same type with another number of rows."""
    shape = None if value.shape is None else ir.Shape([None, *dims_of(value.shape)[1:]])
    return ir.Value(name=name, shape=shape, type=value.type)
