"""Where what a top-k chose meets what linear layers gave, and where all of that has become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphs.branching import upstream
from graphs.moe.linears import linear_of
from graphs.moe.row_wise import constant_of, row_wise

__all__ = ["exits_of", "expert_outputs"]

_LAYOUT = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_PRODUCTS = {"Einsum", "MatMul", "Mul", "Where"}
_DEEP = 6  # nodes between an expert's last linear layer and its output
_FAR = 8  # values behind the experts that could be the sum over them


def expert_outputs(graph: ir.Graph) -> list[tuple[ir.Value, ...]]:
    """For every top-k, the values that what it chose is multiplied with, if experts gave them.

    What several of them meet, as where groups are chosen before experts, is named once.
    """
    order = list(graph)
    found: dict[tuple[ir.Value, ...], None] = {}
    for place, node in enumerate(order):
        if node.op_type == "TopK":
            outputs = tuple(dict.fromkeys(_met(node, order[place + 1 :])))
            if len(outputs) > 1 or any(_batched(value) for value in outputs):
                found[outputs] = None
    return list(found)


def _met(top_k: ir.Node, after: Sequence[ir.Node]) -> Iterator[ir.Value]:
    """Values from linear layers that are multiplied by what the choice decides.

    What linear layers give is theirs, also where the choice decides which rows they read; what has
    met once has met.
    """
    routed: set[ir.Value] = set(top_k.outputs)
    scored = upstream(top_k.outputs[0])
    merged: set[ir.Value] = set()
    for node in after:
        read = [value for value in node.inputs if value is not None]
        if any(value in merged for value in read):
            merged.update(node.outputs)
        elif any(value in routed for value in read):
            if any(linear_of(value) is not None for value in node.outputs):
                continue
            behind: list[ir.Value] = []
            if node.op_type in _PRODUCTS:
                others = [value for value in read if value not in routed]
                behind = [value for other in others for value in _experts_behind(other)]
                behind = [value for value in behind if value.producer() not in scored]
            yield from behind
            (merged if behind else routed).update(node.outputs)


def _experts_behind(value: ir.Value) -> list[ir.Value]:
    node = value.producer()
    if node is None or constant_of(value) is not None:
        return []
    if node.op_type in _LAYOUT and node.inputs[0] is not None:
        return _experts_behind(node.inputs[0])
    if node.op_type == "Concat":
        parts = [_experts_behind(part) for part in node.inputs if part is not None]
        return [found for part in parts for found in part] if all(parts) else []
    return [value] if _from_linear(value, _DEEP) else []


def _from_linear(value: ir.Value, depth: int) -> bool:
    if linear_of(value) is not None:
        return True
    node = value.producer()
    if node is None or depth == 0 or value.shape is None or not row_wise(node, len(value.shape)):
        return False
    return any(_from_linear(read, depth - 1) for read in node.inputs if read is not None)


def _batched(value: ir.Value) -> bool:
    waiting, depth = [value], 0
    while waiting and depth < 4 * _DEEP:
        current, depth = waiting.pop(0), depth + 1
        linear = linear_of(current)
        if linear is not None:
            return linear.axis is not None
        node = current.producer()
        waiting += [] if node is None else [read for read in node.inputs if read is not None]
    return False


def exits_of(outputs: Sequence[ir.Value], graph: ir.Graph) -> list[ir.Value]:
    """The first values that all of ``outputs`` go into and nothing else behind them is read.

    One of them is the sum over experts; those before it still have experts apart.
    """
    every = frozenset(outputs)
    marks = {value: frozenset([value]) for value in outputs}
    live = {value: len(value.uses()) for value in outputs}
    exits: list[ir.Value] = []
    for node in graph:
        read = [value for value in node.inputs if value in live]
        if not read:
            continue
        mark = frozenset[ir.Value]().union(*(marks[v] for v in read if v is not None))
        for value in read:
            assert value is not None
            live[value] -= 1
            if not live[value] and not value.is_graph_output():
                del live[value]
        for value in node.outputs:
            marks[value] = mark
            if value.uses() or value.is_graph_output():
                live[value] = len(value.uses())
        if len(live) == 1:
            (only,) = live
            if marks[only] == every and only not in outputs:
                exits.append(only)
        if not live or len(exits) == _FAR:
            break
    return exits
