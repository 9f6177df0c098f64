"""Combine the members' outputs: stack, interpolate, one node per ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.errors import GraphError
from graphs.joining import Dim, dims_of, signature
from graphs.members import Member
from graphs.ops import CONTRACTS, DOMAIN
from graphs.tree import Combination, Ensemble, Leaf

__all__ = ["Nodes", "combine"]

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass
class Nodes:
    """What combining adds to the fused graph, in order."""

    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def add(self, op_type: str, inputs: list[ir.Value], like: ir.Value, dims: list[Dim]) -> ir.Node:
        """Append a node with one output; its dtype is that of ``like``."""
        attributes = {"axis": 0} if op_type == "Concat" else {}
        domain = DOMAIN if op_type in CONTRACTS else ""
        output = ir.Value(shape=ir.Shape(dims), type=like.type)
        node = ir.node(op_type, inputs, attributes, domain=domain, outputs=[output])
        self.nodes.append(node)
        return node

    def axis(self) -> ir.Value:
        """The axis along which members are stacked, one initializer for all ensembles."""
        if not self.initializers:
            self.constant("interpolation/axis", np.array([0], np.int64))
        return self.initializers[0]

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Append an initializer."""
        tensor = ir.tensor(array, name=name)
        dims = ir.Shape(array.shape)
        value = ir.Value(name=name, shape=dims, type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.initializers.append(value)
        return value


def combine(
    tree: Leaf | Ensemble, members: Mapping[str, Member], nodes: Nodes, prefix: str = ""
) -> dict[str, ir.Value]:
    """The outputs of a tree by name, adding to ``nodes`` what computes them.

    Raises:
        GraphError: If a member lacks the combined output, or members disagree about its dtype or
            shape; names each member with what it has.
    """
    if isinstance(tree, Leaf):
        return members[prefix].outputs
    name = tree.combination.output
    values = {}
    for member in tree.members:
        outputs = combine(member, members, nodes, f"{prefix}{member.name}/")
        if name not in outputs:
            raise GraphError(
                f"member {prefix + member.name!r} has no output {name!r} to combine",
                hint="its outputs are " + ", ".join(outputs),
            )
        values[member.name] = outputs[name]
    _check_agreement(tree, prefix, values)
    result = _interpolate(tree.combination, prefix + "interpolation", values, nodes)
    result.name = prefix + name
    return {name: result}


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
    if first.dtype not in _FLOATS:
        raise GraphError(f"output {name!r} cannot be interpolated: {listing}, wanted floats")
    if tree.combination.space != "values" and not first.shape:
        raise GraphError(f"output {name!r} is a scalar, and a distribution needs a last axis")


def _interpolate(
    combination: Combination, name: str, values: Mapping[str, ir.Value], nodes: Nodes
) -> ir.Value:
    like = next(iter(values.values()))
    assert like.shape is not None

    def add(label: str, op_type: str, inputs: list[ir.Value], *stack: int) -> ir.Value:
        assert like.shape is not None
        node = nodes.add(op_type, inputs, like, [*stack, *dims_of(like.shape)])
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
    accumulate = np.float64 if like.dtype == ir.DataType.DOUBLE else np.float32
    weights = nodes.constant(f"{name}/weights", np.array(combination.weights, accumulate))
    result = add("", _operator(combination), [result, weights])
    if combination.space == "probabilities":
        result = add("/exp", "Exp", [result])
    return result


def _operator(combination: Combination) -> str:
    if combination.space == "values":
        return "WeightedMean"
    return "LinearInterpolation" if combination.kind == "linear" else "LogLinearInterpolation"
