"""Fuse many graphs into one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.combining import combine
from graphs.errors import GraphError
from graphs.functions import merge_functions
from graphs.joining import join_inputs, name_inputs
from graphs.keeping import keep
from graphs.members import Member, add_prefix, leaves, read_member
from graphs.nodes import Nodes
from graphs.ops import CONTRACTS, DOMAIN, VERSION
from graphs.opsets import common_opset, convert
from graphs.passes.base import Pass, PassReport
from graphs.passes.deduplicate_initializers import DeduplicateInitializers
from graphs.passes.deduplicate_subgraphs import DeduplicateSubgraphs
from graphs.passes.remove_unused_nodes import RemoveUnusedNodes
from graphs.rewriting import apply_passes
from graphs.translating import translate
from graphs.tree import Leaf, Tree

__all__ = ["fuse"]

_PRODUCER = "ensemble-to-engine"


def fuse(
    tree: Tree,
    out: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    passes: Sequence[Pass] = (),
    required: Collection[str] = (),
) -> list[PassReport]:
    """Write one graph that computes the whole tree.

    Members share inputs of the same name, equal initializers and whatever they compute alike, such
    as a frozen backbone; names inside start with the path of their (first) member. Outputs are the
    root's combined one, or those of a stack's last stage, and what leaves ``keep``, which is all
    that a group has; a tree that is one leaf keeps its outputs. The same files give the same bytes.

    Args:
        tree: What to fuse; names and weights were checked when it was made.
        out: The model to write; tensors of 1 KiB and more go to ``out.name + ".data"``.
        metadata: Written into the model's ``metadata_props``.
        passes: Applied to the fused graph before it is written, after equal parts are one.
        required: Names of passes that must rewrite something.

    Returns:
        Reports of ``deduplicate_initializers``, ``deduplicate_subgraphs`` (of an ensemble),
        ``remove_unused_nodes`` and ``passes``.

    Raises:
        GraphError: If a file cannot be read, members cannot be joined or combined, a required
            pass rewrites nothing, or the files cannot be written.
    """
    members = {prefix: read_member(prefix, leaf) for prefix, leaf in leaves(tree)}
    name_inputs(tree, members)
    imports = common_opset([(member.name, member.model) for member in members.values()])
    for member in members.values():
        member.model = convert(member.model, member.name, imports[""])
        add_prefix(member)
    for prefix, leaf in leaves(tree):
        if leaf.translation is not None:
            translate(members[prefix], leaf.translation)
    model = _assemble(tree, members, imports)
    for key, text in sorted((metadata or {}).items()):
        model.metadata_props[key] = text
    reports = apply_passes(model, (*_cleaning(tree), *passes), required)
    store.save(model, out)
    return reports


def _cleaning(tree: Tree) -> tuple[Pass, ...]:
    """What every fused graph goes through; a single model stays as it was exported."""
    sharing = () if isinstance(tree, Leaf) else (DeduplicateSubgraphs(),)
    return (DeduplicateInitializers(), *sharing, RemoveUnusedNodes())


def _assemble(tree: Tree, members: Mapping[str, Member], imports: dict[str, int]) -> ir.Model:
    joined = join_inputs(list(members.values()))
    nodes = Nodes()
    outputs = combine(tree, members, joined, nodes)
    outputs = {**outputs, **keep(tree, members, nodes, outputs)}
    if not outputs:
        raise GraphError(
            f"{tree.name!r} has no outputs: nothing of a group is combined",
            hint="name what its leaves keep",
        )
    inputs = [value for name, value in joined.items() if "\0" not in name]
    clash = {str(value.name) for value in inputs} & set(outputs)
    if clash and not isinstance(tree, Leaf):
        raise GraphError(f"{clash.pop()!r} is both an input and an output")
    functions: dict[ir.OperatorIdentifier, ir.Function] = {}
    for operator in dict.fromkeys(node.op_type for node in nodes.nodes if node.domain == DOMAIN):
        function = CONTRACTS[operator].function(imports[""])
        functions[function.identifier()] = function
    # What combines an early stage stands behind what it feeds, until the first pass has sorted.
    content = [_take(member, functions) for member in members.values()]
    graph = ir.Graph(
        inputs,
        list(outputs.values()),
        nodes=[*(node for part, _ in content for node in part), *nodes.nodes],
        initializers=[*(value for _, part in content for value in part), *nodes.initializers],
        opset_imports={**imports, **({DOMAIN: VERSION} if functions else {})},
        name=tree.name,
    )
    return ir.Model(
        graph,
        ir_version=store.IR_VERSION,
        producer_name=_PRODUCER,
        functions=list(functions.values()),
    )


def _take(
    member: Member, functions: dict[ir.OperatorIdentifier, ir.Function]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Empty a member of its nodes and initializers; its functions go to the table."""
    merge_functions(functions, member.model, member.name)
    graph = member.model.graph
    nodes, initializers = list(graph), list(graph.initializers.values())
    graph.outputs.clear()
    graph.inputs.clear()
    graph.initializers.clear()
    graph.remove(nodes)
    return nodes, initializers
