"""Outputs of members that stay outputs beside the combined one: what belongs to a member alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from graphs.errors import GraphError
from graphs.members import Member, leaves
from graphs.nodes import Nodes
from graphs.tree import Leaf, Tree

__all__ = ["keep"]


def keep(
    tree: Tree, members: Mapping[str, Member], nodes: Nodes, taken: Collection[str]
) -> dict[str, ir.Value]:
    """The values of every leaf's ``keep`` under their final names, in the leaves' order.

    Raises:
        GraphError: If a leaf has no such output, or two outputs (or one in ``taken``) would have
            one name.
    """
    found: dict[str, ir.Value] = {}
    if isinstance(tree, Leaf):
        return found
    for prefix, leaf in leaves(tree):
        outputs = members[prefix].outputs
        for own, name in leaf.keep.items():
            if own not in outputs:
                raise GraphError(
                    f"member {members[prefix].name!r} has no output {own!r} to keep",
                    hint="its outputs are " + ", ".join(outputs),
                )
            if name in found or name in taken:
                raise GraphError(
                    f"output {own!r} of member {members[prefix].name!r} is to be called {name!r}, "
                    "which something else is called",
                    hint="names of members that hold dots can clash with nested ones; rename one",
                )
            found[name] = _named(outputs[own], name, prefix, nodes)
    return found


def _named(value: ir.Value, name: str, prefix: str, nodes: Nodes) -> ir.Value:
    """The value, renamed; a copy where its name has another meaning already."""
    if value.producer() is not None and str(value.name).startswith(prefix):
        value.name = name
        return value
    # An input that is handed through, an initializer, or one value under two names.
    copy = ir.Value(name=name, shape=value.shape, type=value.type)
    node = ir.node("Identity", [value], outputs=[copy])
    node.name = f"{prefix}keep_{name}"
    nodes.nodes.append(node)
    return copy
