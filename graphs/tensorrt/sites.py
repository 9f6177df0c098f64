"""Nodes with what is around them, and where a value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from graphs.dims import dims_of
from graphs.tensorrt.spans import words

__all__ = ["Origin", "Site", "constant", "dims", "names_upstream", "origin", "sites", "type_name"]


@dataclass(frozen=True)
class Site:
    """A node and the control flow it stands in, outermost first."""

    node: ir.Node
    inside: tuple[ir.Node, ...] = ()

    @property
    def name(self) -> str:
        """The node's name, or that of its first output."""
        return self.node.name or str(self.node.outputs[0].name)

    def input(self, place: int) -> ir.Value | None:
        """An input; None where it is left out."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def used_outputs(self) -> int:
        """How many outputs up to the last that has a name."""
        named = [place for place, value in enumerate(self.node.outputs) if value.name]
        return named[-1] + 1 if named else 0


def sites(model: ir.Model) -> Iterator[Site]:
    """Every node of the main graph and its subgraphs, each before what is inside it."""
    yield from _sites(model.graph, ())


def _sites(graph: ir.Graph, inside: tuple[ir.Node, ...]) -> Iterator[Site]:
    for node in graph:
        yield Site(node, inside)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _sites(attribute.as_graph(), (*inside, node))


def dims(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """The dimensions of a value; None where not even their number is known."""
    return None if value is None or value.shape is None else dims_of(value.shape)


def type_name(value: ir.Value | None) -> str:
    """The name of a value's ``onnx_ir.DataType``; empty where it is unknown."""
    if value is None or value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return ""
    return value.dtype.name


@dataclass
class Origin:
    """What a value was computed from.

    Attributes:
        inputs: Inputs of graphs, the main one's and those of loop bodies, that were read as values.
        symbols: Names of the dimensions whose sizes were read; None is one without a name.
        data: Whether a value was read whose own origin is a computation on something larger than
            a list of sizes, so that it is known at run time only.
    """

    inputs: set[ir.Value]
    symbols: set[str | None]
    data: bool = False

    @property
    def constant(self) -> bool:
        """Whether it can be computed before the graph runs."""
        return not self.inputs and not self.symbols and not self.data


# What TensorRT computes on the host when a size depends on it; operators that are not here give
# data. Tried with RTX 1.7.1.
_ON_HOST = words(
    "Abs Add And Cast CastLike Ceil Concat Constant ConstantOfShape Div Equal Expand Floor Gather "
    "Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or ReduceMax "
    "ReduceMin ReduceProd ReduceSum Range Reshape Shape Sign Size Slice Split Squeeze Sub Sum "
    "Transpose Unsqueeze Where"
)


def origin(value: ir.Value | None) -> Origin:
    """Follow a value upstream to constants, sizes and inputs."""
    found = Origin(set(), set())
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen or current.const_value is not None:
            continue
        seen.add(id(current))
        node = current.producer()
        if node is None:
            found.inputs.add(current)
        elif node.op_type in {"Shape", "Size"}:
            found.symbols |= _sizes_read(node)
        elif node.op_type not in _ON_HOST:
            found.data = True
        else:
            waiting += node.inputs
    return found


def _sizes_read(node: ir.Node) -> set[str | None]:
    shape = dims(node.inputs[0])
    if shape is None:
        return {None}
    if node.op_type == "Shape":
        start = node.attributes.get_int("start", 0)
        end = node.attributes.get_int("end", len(shape))
        shape = shape[start:end]
    return {dim for dim in shape if not isinstance(dim, int)}


def constant(value: ir.Value | None) -> bool:
    """Whether a value is known before the graph runs; an input left out is."""
    return origin(value).constant


def names_upstream(value: ir.Value) -> set[str]:
    """Names of the dimensions of everything a value is computed from, sizes of others left out."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[ir.Value | None] = [value]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen or current.const_value is not None:
            continue
        seen.add(id(current))
        found |= {dim for dim in dims(current) or () if isinstance(dim, str)}
        node = current.producer()
        if node is not None and node.op_type not in {"Shape", "Size"}:
            waiting += node.inputs
    return found
