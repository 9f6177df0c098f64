"""The nodes at which a graph goes wrong: their outputs have left, their inputs have not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import graphs

__all__ = ["Edge", "frontier"]


@dataclass(frozen=True)
class Edge:
    """Where wrong values begin.

    Attributes:
        node: The node.
        value: Its output that has left, the first of them.
        through: Nodes in front of it whose own outputs cannot be judged, nearest last.
    """

    node: graphs.NodeOutline
    value: str
    through: tuple[graphs.NodeOutline, ...]


def frontier(
    nodes: Sequence[graphs.NodeOutline], left: Callable[[str], bool | None]
) -> Iterator[Edge]:
    """Walk in the order of computation; nothing behind such a node is one itself.

    An error can fade, by saturation or masking, and grow again further on: what stands behind a
    wrong value has its cause there, even where a value in between is within its budget.

    Args:
        nodes: The graph, sorted.
        left: Whether a value has left its budget; None where that is unknown, as for a value that
            a fresh export does not have: the nodes that make it are carried along as ``through``.
    """
    gone: set[str] = set()
    unknown: dict[str, tuple[graphs.NodeOutline, ...]] = {}
    for node in nodes:
        judged = {name: left(name) for name in node.outputs if name}
        wrong = next((name for name, found in judged.items() if found), None)
        behind = {made.name: made for name in node.inputs for made in unknown.get(name, ())}
        fed_wrong = any(name in gone for name in node.inputs)
        if wrong is not None and not fed_wrong:
            yield Edge(node, wrong, tuple(behind.values()))
        if wrong is not None or fed_wrong:
            gone.update(judged)
            continue
        for name, found in judged.items():
            if found is None:
                unknown[name] = (*behind.values(), node)
