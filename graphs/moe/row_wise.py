"""Which ops leave rows apart: what an expert computes besides its linear layers."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["axes_input", "constant_of", "row_wise"]

_ELEMENTWISE = {
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "Log",
    "Max", "Min", "Mish", "Mul", "Neg", "Not", "Pow", "PRelu", "Reciprocal", "Relu", "Selu",
    "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu",
    "Where",
}  # fmt: skip
# Ops along one axis, and which where they do not say.
_LAST_AXIS = {"Split": 0, "Softmax": -1, "LogSoftmax": -1, "LayerNormalization": -1,
              "RMSNormalization": -1, "Concat": 0}  # fmt: skip
_AXES_INPUT = {"ReduceMean": 1, "ReduceSum": 1, "ReduceSumSquare": 1, "ReduceMax": 1}


def row_wise(node: ir.Node, rank: int = 2) -> bool:
    """Whether a row of the output depends on that row of the input alone.

    Args:
        node: Any node.
        rank: Of the values it reads; rows lie along the last axis.
    """
    if node.domain not in {"", "ai.onnx"}:
        return False
    last = {rank - 1, -1}
    if node.op_type in _ELEMENTWISE:
        return all(_broadcasts(value) for value in node.inputs if value is not None)
    if node.op_type in _LAST_AXIS:
        return node.attributes.get_int("axis", _LAST_AXIS[node.op_type]) in last
    place = axes_input(node)
    if place is None or len(node.inputs) <= place:
        return False
    keeps = node.op_type == "Slice" or node.attributes.get_int("keepdims", 1) == 1
    return keeps and _are(node.inputs[place], last)


def axes_input(node: ir.Node) -> int | None:
    """Which input of a node names the axes it works along, if it is of that kind."""
    return 3 if node.op_type == "Slice" else _AXES_INPUT.get(node.op_type)


def constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    """What a value always is, be it an initializer or the output of ``Constant``."""
    return value.const_value or ir.convenience.get_const_tensor(value)


def _broadcasts(value: ir.Value) -> bool:
    """Whether a constant says the same of every row."""
    tensor = constant_of(value)
    if tensor is None:
        return True
    sizes = tuple(tensor.shape.numpy())
    return all(size == 1 for size in sizes[:-1])


def _are(value: ir.Value | None, last: set[int]) -> bool:
    """Whether constant axes are the last one alone."""
    tensor = None if value is None else constant_of(value)
    return tensor is not None and set(tensor.numpy().ravel().tolist()) <= last
