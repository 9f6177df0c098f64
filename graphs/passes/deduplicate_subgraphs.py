"""Compute once what members compute alike: a frozen backbone, a common prefix, equal branches."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphs.errors import GraphError
from graphs.expressions import node_key
from graphs.origin import add_members, members_of
from graphs.passes.base import PassReport
from graphs.passes.deduplicate_initializers import DeduplicateInitializers
from graphs.sharing import first_differences

__all__ = ["DeduplicateSubgraphs"]

_Table = MutableMapping[Hashable, ir.Node]


@dataclass(frozen=True)
class DeduplicateSubgraphs:
    """Replaces ``y = f(x), z = f(x)`` by ``y = f(x)``, across members; outputs keep every bit.

    Cases:

    1. equal initializers become one first, by content (``deduplicate_initializers``);
    2. nodes of the same operator, attributes and inputs become the first of them, in graph order,
       so that equal subgraphs over equal inputs fold from their inputs on; for ``Add``, ``Mul`` and
       other operators that give the same bits in either order the order of inputs is no difference;
    3. control flow folds where its bodies are equal in structure and capture the same values, and a
       node of a body folds into one outside it; what only two bodies share stays in both;
    4. random nodes, ``Dropout`` in training, operators of unknown domains, and calls of functions
       that hold one stay;
    5. an output of the graph keeps its name: it becomes an ``Identity`` of the node that is left;
    6. a node that stands for several members lists all of them, the first first;
    7. where a member computes what another does but for the content of weights, the first such node
       is a near miss, with how much the two share.
    """

    name: ClassVar[str] = "deduplicate_subgraphs"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of removed initializers, then of removed nodes."""
        initializers = DeduplicateInitializers().apply(model)
        totals = Counter(member for node in model.graph for member in members_of(node))
        nodes = tuple(_fold(model.graph, model.functions, {}))
        misses = (*initializers.near_misses, *first_differences(model, totals))
        return PassReport(self.name, (*initializers.sites, *nodes), misses)

    def ensures(self, model: ir.Model) -> None:
        """No two nodes of the main graph compute the same."""
        seen: dict[Hashable, ir.Node] = {}
        for node in model.graph:
            key = _candidate(node, model.functions)
            if key is not None and seen.setdefault(key, node) is not node:
                raise GraphError(f"{self.name} left {node.name!r}, equal to {seen[key].name!r}")


def _fold(
    graph: ir.Graph, functions: MutableMapping[ir.OperatorIdentifier, ir.Function], known: _Table
) -> list[str]:
    """Names of the nodes that were removed from the graph and its bodies.

    Values of an outer graph may be used in a body whatever stands between them: what a node of the
    body reads from outside, the outer node of the same key reads too, so no cycle can arise.
    """
    removed = []
    for node in list(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                removed += _fold(attribute.as_graph(), functions, ChainMap({}, known))
        key = _candidate(node, functions)
        if key is None:
            continue
        first = known.setdefault(key, node)
        if first is not node:
            removed.append(node.name or node.op_type)
            _replace(graph, node, first)
    return removed


def _candidate(
    node: ir.Node, functions: MutableMapping[ir.OperatorIdentifier, ir.Function]
) -> Hashable | None:
    if node.op_type == "Identity" and node.outputs[0].is_graph_output():
        return None  # an output's name
    return node_key(node, functions)


def _replace(graph: ir.Graph, node: ir.Node, first: ir.Node) -> None:
    add_members(first, node)
    for old, new in zip(node.outputs, first.outputs, strict=True):
        new.shape = old.shape if new.shape is None else new.shape
        new.type = old.type if new.type is None else new.type
        outputs = [index for index, output in enumerate(graph.outputs) if output is old]
        if outputs:
            named = ir.Value(name=old.name, shape=old.shape, type=old.type)
            named.metadata_props.update(old.metadata_props)
            old.name = None
            copy = ir.node("Identity", [new], outputs=[named], name=node.name)
            copy.metadata_props.update(node.metadata_props)
            graph.insert_after(node, copy)
            for index in outputs:
                graph.outputs[index] = named
        old.replace_all_uses_with(new)
    graph.remove(node, safe=True)
