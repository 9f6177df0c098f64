"""Say what an ONNX file holds, without reading its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.dims import Dim, dims_of
from graphs.tensors import graphs_of, nodes_of

__all__ = ["Description", "TensorInfo", "describe"]

_NUMPY_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class TensorInfo:
    """One input or output; ``None`` is an unnamed dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        dims = (
            "…"
            if self.shape is None
            else ", ".join("?" if d is None else str(d) for d in self.shape)
        )
        return f"{self.name}: {self.dtype}[{dims}]"


@dataclass(frozen=True)
class Description:
    """What an ONNX file holds.

    Attributes:
        inputs: In order.
        outputs: In order.
        opset: Version of the standard operator set.
        opsets: Versions of all imported domains; the standard one is ``ai.onnx``.
        ir_version: Version of the file format.
        producer: Name and version of what wrote it.
        nodes: Number of nodes, subgraphs included.
        parameters: Number of elements in initializers.
        bytes: Size of initializers in bytes.
        operators: Node counts by operator, most frequent first.
        functions: Names of model-local functions.
        metadata: The model's own key-value pairs.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    nodes: int
    parameters: int
    bytes: int
    operators: Mapping[str, int]
    functions: tuple[str, ...]
    metadata: Mapping[str, str]


def describe(path: Path) -> Description:
    """Describe the model at ``path``.

    Raises:
        GraphError: If the file cannot be used; see ``graphs.store.load``.
    """
    model = store.load(path)
    counts = Counter(_operator(node) for node in nodes_of(model))
    tensors = [
        value.const_value
        for graph in graphs_of(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    opsets = {domain or "ai.onnx": v for domain, v in sorted(model.graph.opset_imports.items())}
    return Description(
        inputs=tuple(_info(value) for value in model.graph.inputs),
        outputs=tuple(_info(value) for value in model.graph.outputs),
        opset=model.graph.opset_imports.get("", 0),
        opsets=opsets,
        ir_version=model.ir_version,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        nodes=sum(counts.values()),
        parameters=sum(math.prod(tensor.shape.numpy()) for tensor in tensors),
        bytes=sum(tensor.nbytes for tensor in tensors),
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        functions=tuple(sorted(f"{f.domain}::{f.name}" for f in model.functions.values())),
        metadata=dict(model.metadata_props),
    )


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _info(value: ir.Value) -> TensorInfo:
    dtype = value.dtype.name.lower() if value.dtype is not None else "unknown"
    shape = None if value.shape is None else dims_of(value.shape)
    return TensorInfo(str(value.name), _NUMPY_NAMES.get(dtype, dtype), shape)
