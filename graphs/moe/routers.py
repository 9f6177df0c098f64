"""Routers in a graph: the nodes that make weights and ids of logits, cut out and run.

A router is found by what it computes and not by how it is spelled: exporters spell one formula in
many ways. The nodes between the logits and the choices are evaluated on random logits, and what an
operator of ours says for the same logits has to agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.dims import dims_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.linears import linear_of

__all__ = ["ROUTER_OPS", "Router", "RouterError", "evaluate", "router_of"]

Array = npt.NDArray[np.generic]

_SHAPES_ONLY = {"Reshape", "Unsqueeze", "Squeeze", "Cast", "CastLike", "Identity", "Expand"}
# What stands between logits and choices. MatMul and Gemm, which make the logits, are not here.
ROUTER_OPS = _SHAPES_ONLY | {
    "Abs", "Add", "And", "ArgMax", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Equal",
    "Exp", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "OneHot",
    "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Range", "Reciprocal", "ReduceMax",
    "ReduceSum", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Size", "Slice", "Softmax",
    "Softplus", "Sqrt", "Sub", "Tanh", "TopK", "Transpose", "Where",
}  # fmt: skip
_LARGE = 1 << 16  # elements of a constant that no router has
_TOKENS_PER_DIM = 7


class RouterError(Exception):
    """Why a router cannot be cut out; becomes the reason of a near miss."""


@dataclass(frozen=True)
class Router:
    """The nodes that choose experts for a block.

    Attributes:
        logits: [T, E] or [.., .., E], what they start from.
        weights: [T, k], the weight of each choice.
        ids: [T, k], int64.
        nodes: In graph order.
        given: What the nodes read besides: constants, and values of which only shapes are read.
    """

    logits: ir.Value
    weights: ir.Value
    ids: ir.Value
    nodes: tuple[ir.Node, ...]
    given: tuple[ir.Value, ...]

    @property
    def num_experts(self) -> int:
        """E."""
        assert self.logits.shape is not None
        count = self.logits.shape[-1]
        assert isinstance(count, int)
        return count

    def constants(self) -> Iterator[Array]:
        """The constants that the nodes read, those in attributes included."""
        for value in self.given:
            tensor = value.const_value
            if tensor is not None and tensor.size <= _LARGE:
                yield tensor.numpy()

    def evaluate(self, seed: int = 0) -> tuple[Array, Array, Array]:
        """Random logits, and the weights and ids that the nodes make of them.

        Raises:
            RouterError: If the nodes cannot be evaluated by themselves.
        """
        feeds = self._feeds(np.random.default_rng(seed))
        try:
            weights, ids = evaluate(self._model(feeds), feeds)
        except Exception as error:  # the evaluator raises whatever its Python code runs into
            reason = str(error).strip().split("\n")[0][:80]
            raise RouterError(f"its router cannot be evaluated alone: {reason}") from error
        return feeds[str(self.logits.name)], weights, ids

    def _feeds(self, random: np.random.Generator) -> dict[str, Array]:
        """Zeros where only shapes are read: names of dimensions have the same size everywhere."""
        named = [v for v in self.given if v.const_value is None]
        sizes: dict[str, int] = {}
        for value in named:
            for dim in dims_of(value.shape):
                if isinstance(dim, str):
                    sizes.setdefault(dim, 0 if dim.startswith("past") else _TOKENS_PER_DIM)
        tokens = _token_count(named, sizes)
        assert self.logits.dtype is not None
        leading = self._leading(tokens)
        drawn = 2 * random.normal(size=(*leading, self.num_experts))
        feeds: dict[str, Array] = {str(self.logits.name): drawn.astype(self.logits.dtype.numpy())}
        for value in named:
            assert value.dtype is not None
            dims = dims_of(value.shape)
            shape = [d if isinstance(d, int) else sizes.get(str(d), tokens) for d in dims]
            feeds[str(value.name)] = np.zeros(shape, value.dtype.numpy())
        return feeds

    def _model(self, feeds: Mapping[str, Array]) -> onnx.ModelProto:
        constants = [
            numpy_helper.from_array(value.const_value.numpy(), str(value.name))
            for value in self.given
            if value.const_value is not None
        ]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        outputs = [
            helper.make_value_info(str(value.name), onnx.TypeProto())
            for value in (self.weights, self.ids)
        ]
        nodes = [_counted_from_front(node) for node in self.nodes]
        graph = helper.make_graph(nodes, "router", inputs, outputs, constants)
        assert self.nodes[0].graph is not None
        opset = self.nodes[0].graph.opset_imports.get("", 20)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])

    def _leading(self, tokens: int) -> tuple[int, ...]:
        """Sizes of the axes before experts."""
        if len(dims_of(self.logits.shape)) == 2:
            return (tokens,)
        return tokens // _TOKENS_PER_DIM, _TOKENS_PER_DIM


def _counted_from_front(node: ir.Node) -> onnx.NodeProto:
    """ONNX's reference implementation gathers along -1 as along no axis; choices are [T, k]."""
    proto = ir.serde.serialize_node(node)
    for attribute in proto.attribute:
        if node.op_type == "GatherElements" and attribute.i == -1:
            attribute.i = 1
    return proto


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[Array, Array]:
    """The two outputs of a model in ONNX's reference implementation."""
    first, second = ReferenceEvaluator(model).run(None, dict(feeds))
    return np.asarray(first), np.asarray(second)


def _token_count(named: list[ir.Value], sizes: Mapping[str, int]) -> int:
    """How many rows logits need for the shapes that the router reads: all of a batch's tokens."""
    for value in named:
        dims = dims_of(value.shape)
        known = [sizes[dim] for dim in dims if isinstance(dim, str) and sizes[dim]]
        if known:
            return math.prod(known)
    return _TOKENS_PER_DIM * _TOKENS_PER_DIM


def router_of(block: ExpertBlock, order: Mapping[ir.Node, int]) -> Router:
    """Cut out the router of a block.

    Args:
        block: The block whose ids it makes.
        order: The place of every node of the graph.

    Raises:
        RouterError: If the weights or the logits cannot be told.
    """
    weights = _weights_of(block)
    nodes, sources, given = _cone([weights, block.ids])
    logits = [value for value in sources if _is_logits(value, block.num_experts)]
    if len(sources) != 1 or len(logits) != 1:
        found = ", ".join(sorted(str(value.name) for value in sources)) or "constants alone"
        raise RouterError(f"its router starts from {found}, wanted logits [T, E]")
    ordered = tuple(sorted(nodes, key=order.__getitem__))
    if not ordered:
        raise RouterError("its weights and ids are inputs of the graph")
    return Router(logits[0], weights, block.ids, ordered, tuple(given))


def _is_logits(value: ir.Value, num_experts: int) -> bool:
    dims = dims_of(value.shape)
    return len(dims) in {2, 3} and dims[-1] == num_experts


def _weights_of(block: ExpertBlock) -> ir.Value:
    """What slots are multiplied by, [T, k]: the first product behind the block that ids decide."""
    origin = block.ids.producer()
    waiting, seen = [block.output], 0
    while waiting and seen < 16:
        value = waiting.pop(0)
        seen += 1
        for use in value.uses():
            if use.node.op_type == "Mul":
                other = use.node.inputs[1 - use.idx]
                found = None if other is None else _two_dimensional(other)
                if found is not None and _depends(found, origin):
                    return found
            waiting += use.node.outputs
    raise RouterError("what its experts are weighted by is not found")


def _two_dimensional(value: ir.Value) -> ir.Value | None:
    """The value [T, k] that a column of slots is a reshape of."""
    current: ir.Value | None = value
    last: ir.Value | None = None
    while current is not None:
        node = current.producer()
        shape = current.shape
        reshaped = node is not None and node.op_type in {"Reshape", "Unsqueeze", "Expand"}
        if shape is not None and len(shape) == 2:
            last = current
            if not reshaped:
                return current
        if node is None or node.op_type not in _SHAPES_ONLY:
            break
        current = node.inputs[0]
    # Tokens of a router may lie in two axes; the reshape of what it gives is part of it then.
    return last if last is not value else None


def _depends(value: ir.Value, origin: ir.Node | None) -> bool:
    """Whether a value comes from the node that makes the ids, or from what that is made of."""
    if origin is None:
        return False
    above, _, _ = _cone([value])
    return origin in above or bool(above & _cone([origin.outputs[0]])[0])


def _routes(node: ir.Node) -> bool:
    return node.op_type in ROUTER_OPS and node.domain in {"", "ai.onnx"}


def _cone(values: list[ir.Value]) -> tuple[set[ir.Node], set[ir.Value], list[ir.Value]]:
    """Nodes upstream as far as they are a router's; where they start; what they read besides."""
    nodes: set[ir.Node] = set()
    sources: set[ir.Value] = set()
    given: dict[ir.Value, None] = {}
    waiting: list[ir.Value] = list(values)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value.const_value is not None:
            given[value] = None
        elif node is None or not _routes(node) or linear_of(value) is not None:
            sources.add(value)
        elif node not in nodes:
            nodes.add(node)
            read = [v for v in node.inputs if v is not None]
            if node.op_type in {"Shape", "Size"}:
                given[read[0]] = None
            else:
                waiting += read
    # A shape that is read of what the router computes itself needs no stand-in.
    known = [v for v in given if v.producer() not in nodes and v not in sources]
    return nodes, sources, known
