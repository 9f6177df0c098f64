"""Read the leaves of a tree and give everything in them a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.errors import GraphError
from graphs.origin import MEMBER
from graphs.tensors import graphs_of, nodes_of, values_of
from graphs.tree import Leaf, Tree, parts_of

__all__ = ["Member", "add_prefix", "leaves", "read_member"]


@dataclass
class Member:
    """A leaf, read.

    Attributes:
        name: Path from the root: ``outer/inner``; the leaf's own name when it is the root.
        prefix: What its names start with: ``outer/inner/``, or nothing when it is the root.
        model: The graph, later emptied into the fused graph.
        inputs: From its own input names to names in the fused graph.
        outputs: Its outputs by their own names.
    """

    name: str
    prefix: str
    model: ir.Model
    inputs: dict[str, str]
    outputs: dict[str, ir.Value]


def leaves(tree: Tree) -> Iterator[tuple[str, Leaf]]:
    """Every leaf with the prefix of its names, left to right, gates after members."""
    if isinstance(tree, Leaf):
        yield "", tree
        return
    for member in parts_of(tree):
        for prefix, leaf in leaves(member):
            yield f"{member.name}/{prefix}", leaf


def read_member(prefix: str, leaf: Leaf) -> Member:
    """Load a leaf and bring it into the form that fusing expects.

    Inputs with a default value become constants; initializers of subgraphs and large ``Constant``
    nodes become initializers of the main graph, where they can be shared and written outside the
    protobuf message.

    Raises:
        GraphError: If the file cannot be used, or ``rename`` names an input it does not have.
    """
    model = store.load(leaf.path)
    name = prefix.rstrip("/") or leaf.name
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    common.LiftConstantsToInitializersPass(size_limit=256)(model)
    if not model.graph.outputs:
        raise GraphError(f"member {name!r} ({leaf.path.name}) has no outputs")
    return Member(name, prefix, model, {str(value.name): "" for value in model.graph.inputs}, {})


def add_prefix(member: Member) -> None:
    """Name every node, value and initializer of the member after it, subgraphs included."""
    model, prefix = member.model, member.prefix
    member.outputs = {str(value.name): value for value in model.graph.outputs}
    seen: Counter[str] = Counter()
    for node in nodes_of(model):
        stem = node.name or node.op_type
        # TensorRT wants unique node names; ONNX does not ask for any.
        node.name = f"{prefix}{stem}" if not seen[stem] else f"{prefix}{stem}#{seen[stem]}"
        seen[stem] += 1
        if prefix:
            node.metadata_props.setdefault(MEMBER, prefix.rstrip("/"))
    if not prefix:
        return
    for value in list(values_of(model)):
        # An optional output that is left out has the empty name, which must stay empty.
        if value.name:
            value.name = prefix + value.name
    for graph in graphs_of(model):
        graph.name = prefix + (graph.name or "graph")
