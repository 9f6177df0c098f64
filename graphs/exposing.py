"""Make the values inside a graph its outputs, so that one run shows them all."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.errors import GraphError
from graphs.inlining import inline_functions

__all__ = ["Exposure", "expose", "hidden_values"]

# What these operators give is a sequence, an optional or a string, not an array of numbers.
_NO_ARRAY = ("Sequence", "Optional", "String", "SplitToSequence", "RegexFullMatch")


@dataclass(frozen=True)
class Exposure:
    """What became an output.

    Attributes:
        values: Their names, in graph order; output ``i`` of the written graph is ``values[i]``,
            or its shape if shapes were asked for.
        left_out: Values of control-flow subgraphs, which no output can reach, as
            ``<node>: <value>``.
    """

    values: tuple[str, ...]
    left_out: tuple[str, ...]


def expose(
    src: Path,
    out: Path,
    names: Collection[str] | None = None,
    what: Literal["values", "shapes"] = "values",
) -> Exposure:
    """Write the graph of ``src`` with values inside it as its only outputs.

    Functions are inlined first, see ``graphs.inlining``; nodes that no exposed value depends on are
    left out. Weights are not copied: ``out`` refers to
    the data file of ``src`` by name, so a runtime must be told to look in the folder of ``src``.

    Args:
        src: The model.
        out: The file to write; nothing is written beside it.
        names: The values to expose, those of inlined functions included; None means every one.
        what: ``shapes`` gives each value's shape (int64 [rank]) in its place: a run of that graph
            tells how large the values are without holding them.

    Raises:
        GraphError: If the model cannot be read, or has no value of a name that was asked for.
    """
    model = store.load(src)
    inline_functions(model)
    graph = model.graph
    found = {str(value.name): value for value in _arrays(graph)}
    unknown = sorted(set(names or ()) - set(found))
    if unknown:
        raise GraphError(f"{src.name} has no value {unknown[0]!r} to expose")
    kept = [value for name, value in found.items() if names is None or name in names]
    outputs = kept if what == "values" else [_shape(value, graph) for value in kept]
    hidden = tuple(hidden_values(graph))
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    # What stands behind the last of them may be what cannot run.
    common.RemoveUnusedNodesPass()(model)
    proto = ir.serde.serialize_model(model)
    try:
        out.write_bytes(proto.SerializeToString())
    except OSError as error:
        raise GraphError(f"cannot write {out}: {error.strerror}") from error
    return Exposure(tuple(str(value.name) for value in kept), hidden)


def _arrays(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        if not node.op_type.startswith(_NO_ARRAY):
            yield from (value for value in node.outputs if value.name)


def _shape(value: ir.Value, graph: ir.Graph) -> ir.Value:
    output = ir.Value(name=f"shape of {value.name}", type=ir.TensorType(ir.DataType.INT64))
    graph.append(ir.node("Shape", [value], outputs=[output]))
    return output


def hidden_values(graph: ir.Graph) -> Iterator[str]:
    """Values of control-flow subgraphs, as ``<node>: <value>``."""
    for node in graph:
        inner = (g for attribute in node.attributes.values() for g in _subgraphs(attribute))
        for subgraph in inner:
            for below in subgraph.all_nodes():
                yield from (f"{node.name}: {value.name}" for value in below.outputs if value.name)


def _subgraphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.is_ref():
        return ()
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()
