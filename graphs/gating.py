"""A gate's scores become weights: one node, and what lines its rows up with the members'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphs.dims import Dim, dims_of
from graphs.errors import GraphError
from graphs.joining import signature
from graphs.nodes import FLOATS, Nodes
from graphs.tree import Ensemble, Gate

__all__ = ["scores_of", "weigh"]

_OPERATORS = {"softmax": "GateSoftmax", "softplus": "GateSoftplus"}


def scores_of(
    tree: Ensemble, gate: Gate, prefix: str, outputs: Mapping[str, ir.Value], like: ir.Value
) -> ir.Value:
    """The gate's output that holds the scores.

    Args:
        tree: The ensemble.
        gate: Its gate.
        prefix: Of names in the ensemble.
        outputs: The gate's outputs by name.
        like: A member's output.

    Raises:
        GraphError: If there is no such output, or its rows are not the members'.
    """
    who = f"gate {prefix + gate.model.name!r}"
    if gate.output not in outputs:
        raise GraphError(
            f"{who} has no output {gate.output!r} with scores",
            hint="its outputs are " + ", ".join(outputs),
        )
    scores = outputs[gate.output]
    assert like.shape is not None
    wanted = dims_of(like.shape)
    rows = wanted if tree.combination.space == "values" else wanted[:-1]
    found = None if scores.shape is None else dims_of(scores.shape)
    count = len(tree.members)
    told = f"{who} gives {gate.output!r} as {signature(scores)}"
    asked = f"wanted scores [{', '.join(map(str, rows))}, {count}] or fewer of these rows"
    if scores.dtype not in FLOATS or not found or found[-1] != count:
        raise GraphError(f"{told} for {count} members, {asked}")
    own = found[:-1]
    fits = [dim in {1, None, row} for dim, row in zip(own, rows, strict=False)]
    if len(own) > len(rows) or not all(fits):
        raise GraphError(
            f"{told}, and the members give {signature(like)}: {asked}",
            hint="the gate's dimensions are the first ones of the combined output, by name",
        )
    return scores


def weigh(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    gate: Gate,
    scores: ir.Value,
    rank: int,
    accumulate: ir.DataType,
    name: str,
    nodes: Nodes,
) -> ir.Value:
    """Log weights [M, rows..., 1, ...] for members stacked [M, ...] whose outputs have ``rank``.

    Args:
        gate: What becomes of the scores.
        scores: [rows..., M].
        rank: Of one member's output.
        accumulate: The type that weights are computed in.
        name: Of the ensemble's interpolation: prefix of what is added.
        nodes: Where it is added.
    """
    assert scores.shape is not None
    dims = dims_of(scores.shape)
    count = int(dims[-1] or 0)

    kind = ir.TensorType(accumulate)

    def add(
        label: str,
        op_type: str,
        inputs: list[ir.Value],
        shape: Sequence[Dim],
        **attributes: int | Sequence[int],
    ) -> ir.Value:
        node = nodes.add(op_type, inputs, kind, shape, **attributes)
        node.name = node.outputs[0].name = f"{name}/{label}"
        return node.outputs[0]

    if scores.dtype != accumulate:
        scores = add("scores", "Cast", [scores], dims, to=accumulate.value)
    top_k = nodes.constant(f"{name}/top_k", np.array(gate.top_k or count, np.int64))
    earlier = nodes.constant(f"{name}/earlier", np.tri(count, k=-1, dtype=bool))
    operator = _OPERATORS[gate.activation]
    logs = add("log_weights", operator, [scores, top_k, earlier], dims)
    last = len(dims) - 1
    by_member = (count, *dims[:-1])
    logs = add("by_member", "Transpose", [logs], by_member, perm=[last, *range(last)])
    if len(by_member) <= rank:
        axes = np.arange(len(by_member), rank + 1)
        constant = nodes.constant(f"{name}/axes", axes.astype(np.int64))
        shape = (*by_member, *[1] * len(axes))
        logs = add("aligned", "Unsqueeze", [logs, constant], shape)
    return logs
