"""The nodes of a graph, those in branches of its control flow included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["every_node"]


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """A node, then what is in its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                yield from every_node(branch)
