"""When two nodes compute the same: keys that are equal only for equal expressions."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping

import onnx_ir as ir

from graphs.tensors import content_of

__all__ = ["is_deterministic", "node_key", "skeleton_key"]

_STANDARD = {"", "ai.onnx", "ai.onnx.ml"}
_RANDOM = {
    "Bernoulli", "Multinomial",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip
# Bit for bit the same in either order, broadcasting included. Min and Max are not among them: of
# two zeros of different sign they may give the first.
_COMMUTATIVE = {"Add", "Mul", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor"}
_TRAINING_MODE = 2  # the input of Dropout that switches it on

Functions = Mapping[ir.OperatorIdentifier, ir.Function]


def is_deterministic(node: ir.Node, functions: Functions) -> bool:
    """Whether the node gives the same outputs for the same inputs, as far as ONNX says.

    Operators of unknown domains are not; calls of functions are if all of the body is.
    """
    function = functions.get(node.op_identifier())
    if function is not None:
        return all(is_deterministic(inner, functions) for inner in function.all_nodes())
    if node.domain not in _STANDARD or node.op_type in _RANDOM:
        return False
    switches = node.inputs[_TRAINING_MODE:]
    return node.op_type != "Dropout" or all(value is None for value in switches)


def node_key(node: ir.Node, functions: Functions) -> Hashable | None:
    """Equal for two nodes of which either can stand for the other; None where nobody can say.

    Inputs are compared by identity, so what they come from must have been made one before;
    attributes by content, floats bit for bit; bodies of control flow by structure. Nodes that leave
    out different outputs differ.
    """
    return _key(node, functions, {})


def skeleton_key(node: ir.Node, functions: Functions) -> Hashable | None:
    """The same but for the content of its weights; None for a node that has none."""
    weights: dict[ir.Value, Hashable] = {
        value: ("weight", value.dtype, tuple(value.const_value.shape.numpy()))
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    return _key(node, functions, weights) if weights else None


def _key(node: ir.Node, functions: Functions, local: dict[ir.Value, Hashable]) -> Hashable | None:
    if not is_deterministic(node, functions):
        return None
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        content = _attribute(attribute, functions, local)
        if content is None:
            return None
        attributes.append((name, content))
    inputs = [None if value is None else local.get(value, id(value)) for value in node.inputs]
    if node.op_type in _COMMUTATIVE and not node.domain:
        inputs.sort(key=repr)
    present = tuple(bool(value.name) for value in node.outputs)
    return node.op_identifier(), tuple(inputs), tuple(attributes), present


def _attribute(  # noqa: PLR0911  (a case for each type)
    attribute: ir.Attr, functions: Functions, local: dict[ir.Value, Hashable]
) -> Hashable | None:
    kind = attribute.type
    if attribute.is_ref():
        return None
    if kind == ir.AttributeType.FLOAT:  # by bits: 0.0 is not -0.0, and NaN is NaN
        return kind, struct.pack("<d", attribute.as_float())
    if kind == ir.AttributeType.FLOATS:
        return kind, b"".join(struct.pack("<d", value) for value in attribute.as_floats())
    if kind in {ir.AttributeType.INT, ir.AttributeType.STRING}:
        return kind, attribute.value
    if kind in {ir.AttributeType.INTS, ir.AttributeType.STRINGS}:
        return kind, tuple(attribute.value)
    if kind == ir.AttributeType.TENSOR:
        return kind, _tensor(attribute.as_tensor())
    if kind == ir.AttributeType.GRAPH:
        return _graph(attribute.as_graph(), functions, local)
    return None


def _tensor(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype, tuple(tensor.shape.numpy()), content_of(tensor)


def _graph(graph: ir.Graph, functions: Functions, local: dict[ir.Value, Hashable]) -> Hashable:
    """The structure of a body: its own values by place, captured ones by identity."""
    local = dict(local)
    depth = len(local)

    def number(value: ir.Value) -> None:
        local[value] = ("local", depth, len(local) - depth)

    for value in graph.inputs:
        number(value)
    for value in graph.initializers.values():
        if value.const_value is None:
            return None
        local[value] = _tensor(value.const_value)
    keys = []
    for node in graph:
        key = _key(node, functions, local)
        if key is None:
            return None
        keys.append(key)
        for value in node.outputs:
            number(value)
    outputs = tuple(local.get(value, id(value)) for value in graph.outputs)
    return len(graph.inputs), tuple(keys), outputs
