"""Which nodes of a float32 graph may compute in half precision, and why the others may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from graphs.moe.blocks import is_expert_linear
from graphs.near_miss import NearMiss
from graphs.ops import DOMAIN

__all__ = ["Lowering", "matches"]

_ELEMENTWISE = {
    "Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softsign",
    "Sub", "Sum", "Swish", "Tanh", "Where",
}  # fmt: skip
_PRODUCTS = {
    "AveragePool", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "MaxPool",
}  # fmt: skip
# They copy elements, or ask for a shape: any type will do, so they follow what they read.
_MOVING = {
    "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Identity", "Pad", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip
_SUMS = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum",
    "ReduceSumSquare",
}  # fmt: skip
_ROOTS = {"Reciprocal", "Sqrt"}
# Sums over many elements, wide ranges, angles, choices between near values, positions.
_KEPT = _SUMS | _ROOTS | {
    "Acos", "ArgMax", "ArgMin", "Asin", "Atan", "BatchNormalization", "Cast", "CastLike", "Ceil",
    "ConstantOfShape", "Cos", "CumSum", "Equal", "Exp", "EyeLike", "Floor", "GlobalAveragePool",
    "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "Hardmax",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LayerNormalization", "Less", "LessOrEqual",
    "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mod", "OneHot", "Pow",
    "RMSNormalization", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "Resize", "Round", "Sign",
    "Sin", "Softmax", "Softplus", "Tan", "TopK", "Upsample",
}  # fmt: skip
_SOFTMAX = {"Softmax", "LogSoftmax"}
_STANDARD = {"", "ai.onnx"}


def matches(name: str | None, patterns: tuple[str, ...]) -> bool:
    """Whether a node's name fits one of the shell patterns; ``*`` crosses slashes and dots."""
    return any(fnmatchcase(name or "", pattern) for pattern in patterns)


@dataclass
class Lowering:
    """The decision for every node of the main graph that reads or gives float32.

    Attributes:
        model: The graph; types of all values are known.
        keep: Patterns of node names that stay in float32.
        unfit: Why a constant does not fit into the lower precision, or nothing.
        kept: Nodes that stay; the others of ``nodes`` may be lowered.
        misses: Nodes that stay although their operator could be lowered, and operators of which
            nothing is known.
    """

    model: ir.Model
    keep: tuple[str, ...]
    unfit: Callable[[ir.Value], str]
    kept: set[ir.Node] = field(default_factory=set)
    misses: list[NearMiss] = field(default_factory=list)
    nodes: list[ir.Node] = field(init=False)
    _positions: set[ir.Value] = field(init=False, default_factory=set)
    _norms: set[ir.Node] = field(init=False, default_factory=set)
    _masks: set[ir.Node] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Decide by operator and neighbours; then by constants, which takes reading them."""
        self.nodes = [node for node in self.model.graph if _is_float(node)]
        self.kept.update(node for node in self.nodes if self._stays(node))
        self._spread()
        for node in self.lowered:
            if reason := self._constants(node):
                self.misses.append(NearMiss(node.name or node.op_type, reason))
                self.kept.add(node)
        self._spread()

    def _spread(self) -> None:
        """Keep what stays because its neighbours do, until nothing changes."""
        before = -1
        while before != len(self.kept):
            before = len(self.kept)
            for node in self.lowered:
                if self._joins(node):
                    self.kept.add(node)

    @property
    def lowered(self) -> list[ir.Node]:
        """In graph order."""
        return [node for node in self.nodes if node not in self.kept]

    def _stays(self, node: ir.Node) -> bool:
        if matches(node.name, self.keep):
            return True
        reason = self._unknown(node)
        if not reason and self._is_position(node):
            self._positions.update(node.outputs)
            return True
        if reason:
            self.misses.append(NearMiss(node.name or node.op_type, reason))
            return True
        ours = node.domain == DOMAIN and not is_expert_linear(node)  # gating, interpolation
        return node.op_type in _KEPT or ours

    def _is_position(self, node: ir.Node) -> bool:
        """Whether its floats come from integers alone: positions, angles, buckets, masks."""
        if node.op_type.startswith("Gather") and _constant(node.inputs[0]):
            return False  # an embedding
        return all(value in self._positions for value in _varying(node))

    def _unknown(self, node: ir.Node) -> str:
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            return f"the bodies of {node.op_type} stay in float32"
        if node.op_identifier() in self.model.functions:
            return "" if node.domain == DOMAIN else f"function {node.op_type} stays in float32"
        known = node.op_type in _ELEMENTWISE | _PRODUCTS | _MOVING | _KEPT
        return (
            "" if known and node.domain in _STANDARD else f"{node.op_type} is not known to be safe"
        )

    def _constants(self, node: ir.Node) -> str:
        floats = (value for value in _floats(node.inputs) if _constant(value))
        return next((reason for value in floats if (reason := self.unfit(value))), "")

    def _joins(self, node: ir.Node) -> bool:
        """Whether a node stays because of its neighbours, of which some stay by now."""
        varying = _varying(node)
        before = [value.producer() for value in varying]
        if node.op_type in _MOVING and any(made in self.kept for made in before):
            return True
        if node.op_type not in _ELEMENTWISE | _MOVING:
            return False
        if node.op_type in _ELEMENTWISE and self._ends_a_norm(node, before):
            self._norms.add(node)
            return True
        return self._precedes_what_stays(node, before)

    def _precedes_what_stays(self, node: ir.Node, before: list[ir.Node | None]) -> bool:
        after = list(self._users(node))
        if _is_square(node) and any(user is not None and user.op_type in _SUMS for user in after):
            return True
        if not after or any(user not in self.kept for user in after):
            return False
        # The scale and mask in front of a softmax; and whatever would be cast there and back.
        if node.op_type in _ELEMENTWISE and all(map(self._is_score, after)):
            self._masks.add(node)
            return True
        return bool(before) and all(made in self.kept for made in before)

    def _is_score(self, user: ir.Node | None) -> bool:
        return user is not None and (user.op_type in _SOFTMAX or user in self._masks)

    def _ends_a_norm(self, node: ir.Node, before: list[ir.Node | None]) -> bool:
        """``x - mean``, ``x / deviation``, and the scale and shift by constants that follow."""
        made = [one for one in before if one is not None and one in self.kept]
        if any(one.op_type in _SUMS | _ROOTS for one in made):
            return True
        by_constants = len(before) == 1 and len(node.inputs) == 2
        return by_constants and bool(made) and made[0] in self._norms

    def _users(self, node: ir.Node) -> Iterator[ir.Node | None]:
        """Who reads its floats; None for whoever reads an output of the graph."""
        for value in _floats(node.outputs):
            yield from (user for user, _ in value.uses())
            if value.is_graph_output():
                yield None


def _is_square(node: ir.Node) -> bool:
    """Which leaves the range of float16 where the value is beyond 255."""
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _is_float(node: ir.Node) -> bool:
    return bool(_floats(node.inputs) or _floats(node.outputs))


def _floats(values: object) -> list[ir.Value]:
    return [v for v in values if v is not None and v.dtype == ir.DataType.FLOAT]  # type: ignore[attr-defined]


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and not value.is_graph_input()


def _varying(node: ir.Node) -> list[ir.Value]:
    return [value for value in _floats(node.inputs) if not _constant(value)]
