"""A graph that also gives which experts its layers choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.errors import GraphError
from graphs.inlining import inline_functions
from graphs.moe.layers import layers_of

__all__ = ["WatchedRouter", "watch_routers"]

_SAME = {"Cast", "Identity"}


@dataclass(frozen=True)
class WatchedRouter:
    """A router whose choices became outputs.

    Attributes:
        ids: Name of the output with the experts of every token, int64 [T, k].
        scores: Name of the output with what they were the largest of, [T, E]; None where the ids
            do not come from a ``TopK``.
        experts: E.
    """

    ids: str
    scores: str | None
    experts: int


def watch_routers(src: Path, out: Path) -> tuple[tuple[WatchedRouter, ...], tuple[str, ...]]:
    """Write the graph of ``src`` with its routers' choices as further outputs.

    The graph's own outputs stay, first and in their order. Functions are inlined, see
    ``graphs.inlining``. Weights are not copied: ``out`` refers to the data file of ``src`` by name,
    so a runtime must be told to look in the folder of ``src``. Nothing is written for a graph
    without a router to watch.

    Returns:
        The routers in graph order, layers that share their ids being one; and the names of
        layers whose choices no output can reach, as in a subgraph.

    Raises:
        GraphError: If the model cannot be read, or ``out`` not be written.
    """
    model = store.load(src)
    layers = {layer.ids: layer for layer in layers_of(model)}
    inline_functions(model)
    order = {str(value.name): value for value in _values(model.graph)}
    found = [(order[ids], layer) for ids, layer in layers.items() if ids in order]
    places = {name: place for place, name in enumerate(order)}
    found.sort(key=lambda pair: places[str(pair[0].name)])
    hidden = tuple(layer.name for ids, layer in layers.items() if ids not in order)
    watched = tuple(_router(value, layer.experts, model.graph) for value, layer in found)
    if watched:
        proto = ir.serde.serialize_model(model)
        try:
            out.write_bytes(proto.SerializeToString())
        except OSError as error:
            raise GraphError(f"cannot write {out}: {error.strerror}") from error
    return watched, hidden


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from (value for value in node.outputs if value.name)


def _router(ids: ir.Value, experts: int, graph: ir.Graph) -> WatchedRouter:
    scores = _scores(ids)
    for value in (ids, scores):
        if value is not None and value not in graph.outputs:
            graph.outputs.append(value)
    return WatchedRouter(str(ids.name), None if scores is None else str(scores.name), experts)


def _scores(ids: ir.Value) -> ir.Value | None:
    """What the ids are the places of the largest of."""
    node = ids.producer()
    while node is not None and node.op_type in _SAME:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    if node is None or node.op_type != "TopK":
        return None
    scores = node.inputs[0]
    # A runtime cannot give an input or a weight back as an output of the same name.
    return scores if scores is not None and scores.producer() is not None else None
