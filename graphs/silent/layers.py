"""Down projections whose input is exactly zero wherever a ReLU says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.dims import dims_of
from graphs.moe.linears import Linear, linear_of
from graphs.moe.row_wise import constant_of
from graphs.near_miss import NearMiss

__all__ = ["Down", "SilentLayer", "downs_of", "silent_layers"]

# Activations that are almost never exactly zero: a model with one of them needs training first.
_NEVER_ZERO = {"Gelu", "Sigmoid", "Erf", "Tanh", "Swish", "HardSwish", "Mish", "Elu", "Selu"}
_PASSED_ON = {"Cast", "Identity"}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class SilentLayer:
    """A down projection after a ReLU.

    Attributes:
        name: Of its node.
        activation: Name of the value that it reads, [.., F].
        neurons: F.
        width: H, of what it gives.
        dtype: Of its weights.
        bytes: Of its weights.
    """

    name: str
    activation: str
    neurons: int
    width: int
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Down:
    """The node of a down projection and what it computes."""

    node: ir.Node
    linear: Linear

    @property
    def neurons(self) -> int:
        """F."""
        return self.linear.sizes[0 if self.linear.transposed else 1]

    @property
    def name(self) -> str:
        """Of the node, or of its output where the node has none."""
        return self.node.name or str(self.node.outputs[0].name)

    @property
    def said(self) -> SilentLayer:
        """What a caller without a graph may know of it."""
        weight = self.linear.weight.const_value
        assert weight is not None
        return SilentLayer(
            name=self.name,
            activation=str(self.linear.x.name),
            neurons=self.neurons,
            width=self.linear.width,
            dtype=weight.dtype.name.lower(),
            bytes=weight.nbytes,
        )


def silent_layers(path: Path) -> tuple[SilentLayer, ...]:
    """The layers of the model at ``path`` that ``skip_silent_neurons`` can rewrite, in order.

    Raises:
        GraphError: If the file cannot be used.
    """
    return tuple(down.said for down in downs_of(store.load(path).graph)[0])


def downs_of(graph: ir.Graph) -> tuple[list[Down], list[NearMiss]]:
    """Every down projection of the main graph, and what is almost one."""
    found: list[Down] = []
    misses: list[NearMiss] = []
    for node in graph:
        if node.op_type not in {"MatMul", "Gemm"} or node.domain not in {"", "ai.onnx"}:
            continue
        x = node.inputs[0]
        source = None if x is None else _zero_source(x)
        if source is None:
            continue
        linear = linear_of(node.outputs[0])
        reason = next(_reasons(node, source, linear), None)
        if reason is not None:
            misses.append(NearMiss(node.name or str(node.outputs[0].name), reason))
        elif linear is not None:
            found.append(Down(node, linear))
    return found, misses


def _reasons(node: ir.Node, source: ir.Node, linear: Linear | None) -> Iterator[str]:
    """Why a product of an activation is left alone, most telling first."""
    if source.op_type in _NEVER_ZERO:
        yield f"its activation is {source.op_type}, which is hardly ever exactly zero, wanted Relu"
    elif linear is None or len(linear.sizes) != 2:
        yield "its weights are no constant matrix [neurons, width], or it scales its product"
    elif linear.weight.dtype not in _FLOATS:
        yield f"its weights are {linear.weight.dtype}, wanted floating point"
    elif node.outputs[0].shape is None or len(dims_of(linear.x.shape)) < 2:
        yield "it reads a vector, or its shapes are not known"
    elif not linear.transposed and any(use is not node for use in _readers(linear.weight)):
        yield "its weights lie by output, and others read them so: a copy by neuron would be kept"


def _readers(weight: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a constant, seen through transpositions."""
    for use in weight.uses():
        if use.node.op_type == "Transpose":
            yield from (below.node for below in use.node.outputs[0].uses())
        else:
            yield use.node


def _zero_source(value: ir.Value) -> ir.Node | None:
    """The activation that makes elements of ``value`` exactly zero, or one that never does.

    Products are zero where either factor is, powers where their base is.
    """
    node = value.producer()
    if node is None or node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type in {"Relu", "ThresholdedRelu"} or _clips_at_zero(node):
        return node
    read = [each for each in node.inputs if each is not None]
    if node.op_type == "Pow":
        exponent = constant_of(read[1])
        positive = exponent is not None and bool((exponent.numpy() > 0).all())
        return _zero_source(read[0]) if positive else None
    if node.op_type == "Mul":
        sources = [source for source in map(_zero_source, read) if source is not None]
        sources.sort(key=lambda source: source.op_type in _NEVER_ZERO)
        return sources[0] if sources else None
    if node.op_type in _PASSED_ON:
        return _zero_source(read[0])
    return node if node.op_type in _NEVER_ZERO else None


def _clips_at_zero(node: ir.Node) -> bool:
    """ReLU6 and its likes."""
    if node.op_type != "Clip" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    least = constant_of(node.inputs[1])
    return least is not None and least.numpy().size == 1 and not float(least.numpy().item())
