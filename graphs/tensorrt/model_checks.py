"""What inputs, weights, dimensions and functions must keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import onnx_ir as ir

from graphs.tensorrt.operators import OPERATORS, STORED
from graphs.tensorrt.sites import Site, dims, origin, sites, type_name
from graphs.tensors import graphs_of, values_of

__all__ = ["Found", "function_checks", "interface_checks", "nodes_with_functions"]

Found = tuple[str, str, str, str]
"""Rule, name of the node or value, operator, what was found."""

_MOST_DIMENSIONS = 8
_BETWEEN = " + "


def interface_checks(model: ir.Model, ranges: Collection[str] | None) -> Iterator[Found]:
    """The rules about inputs, weights and dimensions; functions are inlined."""
    for value in model.graph.inputs:
        if value.const_value is None:
            yield from _input(value, ranges)
    for graph in graphs_of(model):
        for value in graph.initializers.values():
            if type_name(value) not in STORED and value.const_value is not None:
                found = value.const_value.dtype.name
                if found not in STORED:
                    yield "weight-type", str(value.name), "initializer", found.lower()
    for value in values_of(model):
        shape = dims(value)
        if shape is not None and len(shape) > _MOST_DIMENSIONS:
            node = value.producer()
            operator = "input" if node is None else node.op_type
            yield "rank", _name(node, value), operator, f"{value.name!r} of {len(shape)} dimensions"
    yield from _shape_inputs(model)


def _name(node: ir.Node | None, value: ir.Value) -> str:
    return str(value.name) if node is None or not node.name else node.name


def _input(value: ir.Value, ranges: Collection[str] | None) -> Iterator[Found]:
    kind = type_name(value)
    if kind not in STORED:
        yield "input-type", str(value.name), "input", kind.lower() or "no tensor"
    for axis, dim in enumerate(dims(value) or ()):
        if dim is None:
            yield "dimension-unnamed", str(value.name), "input", f"dimension {axis} has no name"
        elif isinstance(dim, str) and ranges is not None:
            missing = [name for name in dim.split(_BETWEEN) if name not in ranges]
            if missing:
                found = f"dimension {missing[0]!r} has no range"
                yield "dimension-range", str(value.name), "input", found


# The inputs that TensorRT wants on the host, as they decide a shape.
_DECIDING = {
    "ConstantOfShape": (0,), "CumSum": (1,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3),
    "Range": (0, 1, 2), "Reshape": (1,), "Resize": (2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "Tile": (1,), "TopK": (1,),
}  # fmt: skip


def _shape_inputs(model: ir.Model) -> Iterator[Found]:
    for site in sites(model):
        for place in _DECIDING.get(site.node.op_type, ()):
            for value in sorted(_read(site, place, model), key=lambda value: str(value.name)):
                found = f"the values of input {value.name!r} decide a shape"
                yield "shape-input", site.name, site.node.op_type, found


def _read(site: Site, place: int, model: ir.Model) -> set[ir.Value]:
    """The inputs whose values an operand is computed from, where they are of fixed size.

    TensorRT computes such a size on the host; a larger input's values are data to it.
    """
    given = set(model.graph.inputs)
    found = origin(site.input(place)).inputs & given
    return {
        value
        for value in found
        if (shape := dims(value)) is not None and all(isinstance(dim, int) for dim in shape)
    }


def function_checks(model: ir.Model) -> Iterator[Found]:
    """The rules about functions; before they are inlined."""
    names = Counter(function.name for function in model.functions.values())
    for function in model.functions.values():
        if names[function.name] > 1:
            found = f"{names[function.name]} functions of this name"
            yield "function-name", function.name, "function", found
        elif function.name in OPERATORS:
            yield "function-name", function.name, "function", "the name of one of ONNX's operators"
    for node, inner in nodes_with_functions(model):
        called = model.functions.get(node.op_identifier())
        if called is not None:
            yield from _call(node, called, inner)


def nodes_with_functions(model: ir.Model) -> Iterator[tuple[ir.Node, bool]]:
    """Every node, subgraphs and functions included, and whether it is in a function."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        yield node, False
    for function in model.functions.values():
        for node in ir.traversal.RecursiveGraphIterator(function):
            yield node, True


def _call(node: ir.Node, function: ir.Function, inner: bool) -> Iterator[Found]:
    name = node.name or str(node.outputs[0].name)
    if len(node.inputs) != len(function.inputs):
        found = f"{len(node.inputs)} inputs, and the function has {len(function.inputs)}"
        yield "function-inputs", name, node.op_type, found
    if node.op_type == "TRT_MoE":
        yield "native-moe", name, node.op_type, "TensorRT's own layer of experts"
    handed = [key for key, attribute in node.attributes.items() if attribute.is_ref()]
    if inner and handed and any(_refers(below) for below in function):
        yield "function-attribute", name, node.op_type, f"attribute {handed[0]!r} is handed on"


def _refers(node: ir.Node) -> bool:
    return any(attribute.is_ref() for attribute in node.attributes.values())
