"""Part of a graph cut out and run by itself in ONNX's reference implementation, on other inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.dims import dims_of
from graphs.moe.linears import NotExpertsError, linear_of
from graphs.moe.routers import ROUTER_OPS

__all__ = ["Array", "Cut", "Leading", "cut_above", "leading_of"]

Array = npt.NDArray[Any]
Leading = Callable[[int], tuple[int, ...]]

# Besides what routers are made of: how rows are gathered, sent back and summed.
_OPS = ROUTER_OPS | {
    "Einsum", "Flatten", "MatMul", "NonZero", "ReduceMean", "Split", "Sum", "Tile", "Trilu",
}  # fmt: skip
_LARGE = 1 << 16  # elements of a constant that no routing has
_SIDE = 7


@dataclass(frozen=True)
class Cut:
    """Nodes of a graph that can be run alone.

    Attributes:
        nodes: In graph order.
        sources: What they start from.
        shapes: Values of which they read the shape alone.
        constants: Initializers that they read.
        opset: The version of ONNX's operators.
    """

    nodes: tuple[ir.Node, ...]
    sources: tuple[ir.Value, ...]
    shapes: tuple[ir.Value, ...]
    constants: tuple[ir.Value, ...]
    opset: int

    def run(
        self,
        outputs: Sequence[ir.Value],
        feeds: Mapping[ir.Value, Array],
        extra: Sequence[onnx.NodeProto] = (),
    ) -> list[Array]:
        """Values for those of the sources and shapes.

        Args:
            outputs: What to compute.
            feeds: An array for every source; shapes without one are zeros.
            extra: Nodes that give what some of ``nodes`` read.

        Raises:
            NotExpertsError: If the nodes do not run.
        """
        named = {str(value.name): array for value, array in feeds.items()}
        protos = [*extra, *(ir.serde.serialize_node(node) for node in self.nodes)]
        constants = [
            numpy_helper.from_array(tensor.numpy(), str(value.name))
            for value in self.constants
            if (tensor := value.const_value) is not None
        ]
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in named.items()
        ]
        wanted = [helper.make_value_info(str(v.name), onnx.TypeProto()) for v in outputs]
        graph = helper.make_graph(_ordered(protos, named, constants), "cut", inputs, wanted,
                                  constants)  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return [np.asarray(each) for each in ReferenceEvaluator(model).run(None, named)]
        except Exception as error:  # the evaluator raises whatever its Python code runs into
            reason = str(error).strip().split("\n")[0][:80]
            raise NotExpertsError(f"its routing cannot be evaluated alone: {reason}") from error


def cut_above(
    outputs: Iterable[ir.Value], stops: Iterable[ir.Value], order: Mapping[ir.Node, int]
) -> Cut:
    """The nodes above ``outputs``, as far as they could be routing.

    Args:
        outputs: Values to be computed.
        stops: Values whose nodes are not wanted.
        order: The place of every node of the graph.
    """
    found: dict[ir.Node, None] = {}
    sources: dict[ir.Value, None] = {}
    shapes: dict[ir.Value, None] = {}
    constants: dict[ir.Value, None] = {}
    stopped, waiting = set(stops), list(outputs)
    below = _below(stopped, order)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value.const_value is not None and (node is None or node.op_type != "Constant"):
            (constants if value.const_value.size <= _LARGE else sources)[value] = None
        elif value in stopped or node is None or not _routes(node):
            sources[value] = None
        elif node not in found:
            found[node] = None
            read = [each for each in node.inputs if each is not None]
            if node.op_type in {"Shape", "Size"} and read[0] not in below:
                shapes[read[0]] = None
            else:
                waiting += read
    nodes = tuple(sorted(found, key=order.__getitem__))
    made = {value for node in nodes for value in node.outputs}
    kept = tuple(value for value in shapes if value not in made and value not in sources)
    graph = next((node.graph for node in nodes if node.graph is not None), None)
    opset = 20 if graph is None else graph.opset_imports.get("", 20)
    return Cut(nodes, tuple(sources), kept, tuple(constants), opset)


def _below(stops: set[ir.Value], order: Iterable[ir.Node]) -> set[ir.Value]:
    """What depends on ``stops`` or on a choice: its shape has to be computed."""
    found = set(stops)
    for node in order:
        if node.op_type == "TopK" or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found - stops


def _routes(node: ir.Node) -> bool:
    if node.domain not in {"", "ai.onnx"} or node.op_type not in _OPS:
        return False
    return all(linear_of(value) is None for value in node.outputs)


def _ordered(
    nodes: list[onnx.NodeProto], feeds: Mapping[str, Array], constants: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Nodes in an order in which they can run: some are put among those of a graph."""
    known = {*feeds, *(tensor.name for tensor in constants), ""}
    placed: list[onnx.NodeProto] = []
    while nodes:
        ready = [node for node in nodes if known.issuperset(node.input)]
        if not ready:
            return placed + nodes  # evaluating says what is missing
        placed += ready
        known.update(name for node in ready for name in node.output)
        nodes = [node for node in nodes if not known.issuperset(node.output)]
    return placed


def leading_of(values: Iterable[ir.Value]) -> Leading:
    """Sizes of the axes before the last, by how many there are, with the same tokens in all.

    Fixed sizes of the values are kept; others are 7.
    """
    pairs: list[tuple[int, int]] = []
    singles: list[int] = []
    for value in values:
        dims = dims_of(value.shape)
        axes = dims[:-1] if dims and isinstance(dims[-1], int) else dims
        known = [dim if isinstance(dim, int) else _SIDE for dim in axes]
        if len(axes) == 2:
            pairs.append((known[0], known[1]))
        elif len(axes) == 1 and isinstance(axes[0], int):
            singles.append(axes[0])
    if pairs:
        batch, sequence = pairs[0]
    elif singles:
        batch, sequence = 1, singles[0]
    else:
        batch, sequence = _SIDE, _SIDE
    return lambda count: (
        (batch * sequence,) if count == 1 else (batch, sequence, *[1] * (count - 2))
    )
