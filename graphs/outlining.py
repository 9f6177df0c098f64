"""A graph as plain data: its nodes, what connects them, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphs import store
from graphs.exposing import hidden_values
from graphs.inlining import CALL, inline_functions
from graphs.origin import MEMBER
from graphs.passes.strip_exporter_metadata import MODULE, SOURCE

__all__ = ["NodeOutline", "Outline", "outline"]

_SHOWN = 8


@dataclass(frozen=True)
class NodeOutline:
    """One node of the main graph.

    Attributes:
        name: Its name.
        op: The operator, with its domain unless that is ONNX's own.
        inputs: Names of values; empty for an optional input that is left out.
        outputs: Names of values.
        attributes: Values as text; long tensors and subgraphs by shape and hash.
        member: The member of the ensemble it belongs to, ``a, b`` where several share it, or
            nothing.
        module: Dotted path of its PyTorch module, or nothing.
        source: PyTorch operator and line of code, or nothing.
        call: Name of the call whose function's body it is part of, or nothing.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str]
    member: str = ""
    module: str = ""
    source: str = ""
    call: str = ""


@dataclass(frozen=True)
class Outline:
    """The main graph, functions inlined as in ``graphs.expose``.

    Attributes:
        inputs: Names.
        outputs: Names.
        nodes: In an order in which they can run.
        initializers: Names.
        hidden: Values of control-flow subgraphs, as ``<node>: <value>``.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[NodeOutline, ...]
    initializers: tuple[str, ...]
    hidden: tuple[str, ...] = ()


def outline(path: Path) -> Outline:
    """Read a model without its weights.

    Raises:
        GraphError: If it cannot be read.
    """
    model = store.load(path)
    inline_functions(model)
    model.graph.sort()
    graph = model.graph
    return Outline(
        inputs=tuple(str(value.name) for value in graph.inputs),
        outputs=tuple(str(value.name) for value in graph.outputs),
        nodes=tuple(_node(node) for node in graph),
        initializers=tuple(graph.initializers),
        hidden=tuple(hidden_values(graph)),
    )


def _node(node: ir.Node) -> NodeOutline:
    props = node.metadata_props
    return NodeOutline(
        name=node.name or node.op_type,
        op=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        inputs=tuple("" if value is None else str(value.name) for value in node.inputs),
        outputs=tuple(str(value.name) for value in node.outputs),
        attributes={name: _text(value) for name, value in sorted(node.attributes.items())},
        member=props.get(MEMBER, ""),
        module=props.get(MODULE, ""),
        source=props.get(SOURCE, ""),
        call=props.get(CALL, ""),
    )


def _text(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        array = attribute.as_tensor().numpy()
        if array.size <= _SHOWN:
            return f"{array.dtype}{np.array2string(array, separator=', ')}"
        return f"{array.dtype}{list(array.shape)} {_digest(array.tobytes())}"
    if attribute.type == ir.AttributeType.GRAPH:
        proto = ir.serde.serialize_graph(attribute.as_graph())
        return f"subgraph {_digest(proto.SerializeToString(deterministic=True))}"
    if attribute.type in {ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}:
        return str(np.asarray(attribute.value, np.float32))
    return str(attribute.value)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
