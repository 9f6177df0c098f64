"""Blocks of experts: linear layers of experts and the row-wise nodes between them.

An export writes a feed-forward expert as two ``ExpertLinear`` nodes with the activation in plain
ops between them. Those belong together, because an expert that has no rows should run none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphs.contracts import DOMAIN
from graphs.moe.row_wise import constant_of, row_wise
from graphs.moe.slabs import slab_of
from graphs.near_miss import NearMiss

__all__ = ["ExpertBlock", "find_blocks", "is_expert_linear", "spread_of"]

_LINEARS = {"ExpertLinear", "ExpertLinearBias"}


@dataclass(frozen=True)
class ExpertBlock:
    """Experts that can run one by one.

    Attributes:
        name: Of the node that gives ``output``.
        x: [N, D], what the experts read.
        spread: How many consecutive slots read one row of ``x``.
        ids: [T, k] int64; N * spread = T * k.
        nodes: From the first linear layers to the last, in graph order.
        output: [T * k, U], what the experts give, slot by slot.
    """

    name: str
    x: ir.Value
    spread: int
    ids: ir.Value
    nodes: tuple[ir.Node, ...]
    output: ir.Value

    @property
    def linears(self) -> list[ir.Node]:
        """The linear layers of experts, in graph order."""
        return [node for node in self.nodes if is_expert_linear(node)]

    @property
    def num_experts(self) -> int:
        """How many experts there are."""
        count = _experts_of(self.linears[0])
        assert count is not None
        return count

    @property
    def top_k(self) -> int | None:
        """How many of them a token goes to; None where the graph does not say."""
        count = None if self.ids.shape is None else self.ids.shape[1]
        return count if isinstance(count, int) else None


def is_expert_linear(node: ir.Node) -> bool:
    """Whether a node is a linear layer of experts."""
    return node.domain == DOMAIN and node.op_type in _LINEARS


def spread_of(node: ir.Node) -> int:
    """The attribute ``spread`` of a linear layer of experts."""
    return node.attributes.get_int("spread", 1)


def find_blocks(graph: ir.Graph) -> tuple[list[ExpertBlock], list[NearMiss]]:
    """The blocks of a sorted graph, in its order.

    Layers that nothing row-wise connects are blocks of their own. Misses are layers whose weights
    are not constant.
    """
    misses: list[NearMiss] = []
    taken: set[ir.Node] = set()
    blocks: list[ExpertBlock] = []
    # From the back: the last layer of an expert claims those before it.
    for node in reversed(list(graph)):
        if not is_expert_linear(node) or node in taken:
            continue
        if _experts_of(node) is None:
            misses.append(NearMiss(str(node.name), "how many experts its weights hold is unknown"))
            continue
        block = _alone(node) if spread_of(node) > 1 else _block_before(node) or _alone(node)
        if any(end.shape is None or end.dtype is None for end in (block.x, block.output)):
            misses.append(NearMiss(block.name, "the shapes around it are unknown"))
            continue
        taken.update(block.nodes)
        blocks.append(block)
    order = {node: place for place, node in enumerate(graph)}
    blocks = [
        ExpertBlock(b.name, b.x, b.spread, b.ids, tuple(sorted(b.nodes, key=order.__getitem__)),
                    b.output)
        for b in reversed(blocks)
    ]  # fmt: skip
    return blocks, misses


def _experts_of(linear: ir.Node) -> int | None:
    """How many matrices a linear layer holds; None where the graph does not say."""
    weight = linear.inputs[2]
    assert weight is not None
    slab = slab_of(weight)
    shape = weight.shape if slab is None else slab.value.shape
    count = None if shape is None else shape[0]
    return count if isinstance(count, int) else None


def _alone(node: ir.Node) -> ExpertBlock:
    x, ids = node.inputs[0], node.inputs[1]
    assert x is not None
    assert ids is not None
    return ExpertBlock(str(node.name), x, spread_of(node), ids, (node,), node.outputs[0])


def _block_before(last: ir.Node) -> ExpertBlock | None:
    """The block that ends in ``last``; None unless all that it reads are experts' rows."""
    x, ids = last.inputs[0], last.inputs[1]
    assert x is not None
    assert ids is not None
    above = _rows_above(x, ids)
    if above is None:
        return None
    found, entries = above | {last}, {n for n in above if _is_entry(n, above)}
    sources = {node.inputs[0] for node in entries}
    if len(sources) != 1 or len({spread_of(node) for node in entries}) != 1:
        return None
    if any(_read_outside(node, found) for node in above):
        return None
    source = sources.pop()
    assert source is not None
    spread = spread_of(next(iter(entries)))
    return ExpertBlock(str(last.name), source, spread, ids, tuple(found), last.outputs[0])


def _rows_above(value: ir.Value, ids: ir.Value) -> set[ir.Node] | None:
    """The row-wise nodes between a value and the linear layers of experts that it comes from.

    None if it comes from anything else as well.
    """
    found: set[ir.Node] = set()
    waiting: list[ir.Value | None] = [value]
    while waiting:
        below = waiting.pop()
        if below is None or constant_of(below) is not None:
            continue
        node = below.producer()
        if node is None:
            return None
        if node in found:
            continue
        found.add(node)
        if is_expert_linear(node):
            x = node.inputs[0]
            if node.inputs[1] is not ids or x is None:
                return None
            # The first layer of an expert reads tokens; one behind it reads rows of the same slots.
            found |= (_rows_above(x, ids) or set()) if spread_of(node) == 1 else set()
        elif row_wise(node):
            waiting += node.inputs
        else:
            return None
    return found


def _is_entry(node: ir.Node, found: set[ir.Node]) -> bool:
    if not is_expert_linear(node):
        return False
    x = node.inputs[0]
    return x is not None and x.producer() not in found


def _read_outside(node: ir.Node, found: set[ir.Node]) -> bool:
    return any(
        value.is_graph_output() or any(use.node not in found for use in value.uses())
        for value in node.outputs
    )
