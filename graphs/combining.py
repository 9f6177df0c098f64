"""Combine the members' outputs: stack, interpolate, one node per ensemble; connect stages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphs.dims import dims_of
from graphs.errors import GraphError
from graphs.gating import scores_of, weigh
from graphs.joining import connect, fed_name, signature
from graphs.members import Member
from graphs.nodes import FLOATS, Nodes
from graphs.tree import Ensemble, Group, Leaf, Stack, Tree

__all__ = ["combine"]


def combine(
    tree: Tree,
    members: Mapping[str, Member],
    inputs: Mapping[str, ir.Value],
    nodes: Nodes,
    prefix: str = "",
) -> dict[str, ir.Value]:
    """The outputs of a tree by name, adding to ``nodes`` what computes them; a group has none.

    Args:
        tree: What to combine.
        members: Its leaves by the prefix of their names.
        inputs: As ``join_inputs`` gives them; those of feeds are connected and used no more.
        nodes: Where nodes are added.
        prefix: Of names in ``tree``.

    Raises:
        GraphError: If a member lacks the combined output, or members disagree about its dtype or
            shape; names each member with what it has.
    """
    if isinstance(tree, Leaf):
        return members[prefix].outputs
    if isinstance(tree, Stack):
        return _stacked(tree, members, inputs, nodes, prefix)
    if isinstance(tree, Group):
        for member in tree.members:
            combine(member, members, inputs, nodes, f"{prefix}{member.name}/")
        return {}
    name = tree.combination.output
    values = {}
    for member in tree.members:
        outputs = combine(member, members, inputs, nodes, f"{prefix}{member.name}/")
        if name not in outputs:
            raise GraphError(
                f"member {prefix + member.name!r} has no output {name!r} to combine",
                hint="its outputs are " + ", ".join(outputs),
            )
        values[member.name] = outputs[name]
    _check_agreement(tree, prefix, values)
    scores = None
    if tree.gate is not None:
        inner = f"{prefix}{tree.gate.model.name}/"
        outputs = combine(tree.gate.model, members, inputs, nodes, inner)
        scores = scores_of(tree, tree.gate, prefix, outputs, next(iter(values.values())))
    result = _interpolate(tree, prefix + "interpolation", values, scores, nodes)
    result.name = prefix + name
    return {name: result}


def _stacked(
    tree: Stack,
    members: Mapping[str, Member],
    inputs: Mapping[str, ir.Value],
    nodes: Nodes,
    prefix: str,
) -> dict[str, ir.Value]:
    outputs: dict[str, ir.Value] = {}
    for place, stage in enumerate(tree.stages):
        path = prefix + stage.name
        outputs = combine(stage, members, inputs, nodes, f"{path}/")
        behind = tuple(f"{prefix}{later.name}/" for later in tree.stages[place + 1 :])
        takers = [member for name, member in members.items() if name.startswith(behind)]
        for feed, source in tree.feeds.items():
            if source.stage != stage.name:
                continue
            if source.output not in outputs:
                raise GraphError(
                    f"stage {path!r} has no output {source.output!r} for the feed {feed!r}",
                    hint="its outputs are " + ", ".join(outputs),
                )
            given, taken = outputs[source.output], inputs[fed_name(prefix, feed)]
            connect(prefix + feed, given, f"{path}/{source.output}", inputs, taken, takers)
    for name, value in outputs.items():
        value.name = prefix + name
    return outputs


def _check_agreement(tree: Ensemble, prefix: str, values: Mapping[str, ir.Value]) -> None:
    name = tree.combination.output
    found = {prefix + member: signature(value) for member, value in values.items()}
    listing = ", ".join(f"{member!r} has {what}" for member, what in found.items())
    if len(set(found.values())) > 1:
        raise GraphError(
            f"members disagree about output {name!r}: {listing}",
            hint="dtype and shape must agree, symbolic dimensions by name",
        )
    first = next(iter(values.values()))
    if first.dtype not in FLOATS:
        raise GraphError(f"output {name!r} cannot be interpolated: {listing}, wanted floats")
    if tree.combination.space != "values" and not first.shape:
        raise GraphError(f"output {name!r} is a scalar, and a distribution needs a last axis")


def _interpolate(
    tree: Ensemble,
    name: str,
    values: Mapping[str, ir.Value],
    scores: ir.Value | None,
    nodes: Nodes,
) -> ir.Value:
    like = next(iter(values.values()))
    assert like.shape is not None
    combination = tree.combination

    def add(label: str, op_type: str, inputs: list[ir.Value], *stack: int) -> ir.Value:
        assert like.shape is not None
        attributes = {"axis": 0} if op_type == "Concat" else {}
        dims = [*stack, *dims_of(like.shape)]
        node = nodes.add(op_type, inputs, like.type, dims, **attributes)
        node.name = node.outputs[0].name = name + label
        return node.outputs[0]

    rows = [
        add(f"/unsqueeze_{member}", "Unsqueeze", [value, nodes.axis()], 1)
        for member, value in values.items()
    ]
    result = add("/stack", "Concat", rows, len(rows))
    if combination.space == "probabilities":
        result = add("/log", "Log", [result], len(rows))
    # Half precision loses the tails of distributions, so mixing is done in float32 at least.
    accumulate = ir.DataType.DOUBLE if like.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    if tree.gate is None or scores is None:
        constant = np.array(combination.weights, accumulate.numpy())
        weights = nodes.constant(f"{name}/weights", constant)
    else:
        weights = weigh(tree.gate, scores, len(like.shape), accumulate, name, nodes)
    result = add("", _operator(tree), [result, weights])
    if combination.space == "probabilities":
        result = add("/exp", "Exp", [result])
    return result


def _operator(tree: Ensemble) -> str:
    prefix = "" if tree.gate is None else "Gated"
    if tree.combination.space == "values":
        return prefix + "WeightedMean"
    kinds = {"linear": "LinearInterpolation", "log_linear": "LogLinearInterpolation"}
    return prefix + kinds[tree.combination.kind]
