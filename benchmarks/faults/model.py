"""A small ONNX model in memory, with the edits that faults are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Array", "Body", "Model", "Site"]

Array = npt.NDArray[Any]
PLANTED = "planted"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Site:
    """One place where a fault can be planted.

    Attributes:
        place: Where, for people.
        nodes: Names of the nodes that compute something else afterwards.
        plant: Changes the model.
    """

    place: str
    nodes: tuple[str, ...]
    plant: Callable[[], None]


class Body:
    """A list of nodes with its constants: the main graph, or a function's."""

    def __init__(self, model: Model, nodes: Any, owner: str) -> None:
        self._model = model
        self.nodes = nodes
        self.owner = owner

    def of(self, *ops: str) -> list[onnx.NodeProto]:
        """The nodes of these operators, in order."""
        return [node for node in self.nodes if node.op_type in ops]

    def label(self, node: onnx.NodeProto) -> str:
        """The name of a node, or of the function it is in and its first output."""
        return node.name or f"{self.owner}/{node.output[0]}"

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a value."""
        return next((node for node in self.nodes if name in node.output), None)

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.nodes if name in node.input]

    def constant(self, name: str) -> Array | None:
        """A weight or constant; None for a value that is computed."""
        if not self.owner:
            return self._model.weights.get(name)
        node = self.producer(name)
        if node is None or node.op_type != "Constant":
            return None
        return _constant_of(node)

    def new_constant(self, value: Array, before: onnx.NodeProto) -> str:
        """Add a constant and return its name."""
        name = self._model.fresh()
        if not self.owner:
            self._model.set_weight(name, value)
            return name
        tensor = numpy_helper.from_array(value)
        self.nodes.insert(
            self._at(before), helper.make_node("Constant", [], [name], name=name, value=tensor)
        )
        return name

    def insert(
        self, op: str, inputs: Sequence[str], *, after: onnx.NodeProto | None, **attributes: Any
    ) -> onnx.NodeProto:
        """Add a node of one output behind ``after``, or first of all."""
        name = self._model.fresh()
        node = helper.make_node(op, list(inputs), [name], name=f"{PLANTED}/{name}", **attributes)
        at = 0 if after is None else self._at(after) + 1
        self.nodes.insert(at, node)
        placed: onnx.NodeProto = self.nodes[at]
        return placed

    def hide(self, node: onnx.NodeProto, index: int = 0) -> str:
        """Give one of a node's outputs a new name and return it; readers keep the old one."""
        hidden = self._model.fresh()
        node.output[index] = hidden
        return hidden

    def bypass(self, node: onnx.NodeProto, index: int) -> None:
        """Let a node's readers have its input ``index`` instead of what it computes."""
        old, source = node.output[0], node.input[index]
        self.hide(node)
        self.insert("Identity", [source], after=node).output[0] = old

    def filter(self, node: onnx.NodeProto, op: str, *more: str, **attributes: Any) -> None:
        """Put an operator behind a node: readers have ``op(output, *more)``."""
        old = node.output[0]
        filtered = self.insert(op, [self.hide(node), *more], after=node, **attributes)
        filtered.output[0] = old

    def _at(self, node: onnx.NodeProto) -> int:
        return next(i for i, one in enumerate(self.nodes) if one.output[0] == node.output[0])


class Model:
    """An ONNX model whose weights are all in memory.

    Attributes:
        proto: The model, without its weights until ``finished``.
        weights: Every initializer of the main graph.
        bodies: The main graph and the functions.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        self._count = 0
        functions = [Body(self, f.node, f.name) for f in self.proto.functions]
        self.main = Body(self, self.proto.graph.node, "")
        self.bodies = [self.main, *functions]

    @classmethod
    def read(cls, path: Path) -> Model:
        """Load a file with its external data."""
        return cls(onnx.load(path))

    @property
    def half(self) -> bool:
        """Whether the matrices are float16."""
        return any(w.dtype == np.float16 and w.ndim > 1 for w in self.weights.values())

    @cached_property
    def floats(self) -> frozenset[str]:
        """Values of the main graph that are floating-point numbers."""
        graph = onnx.shape_inference.infer_shapes(self.proto).graph
        values = (*graph.value_info, *graph.input, *graph.output)
        found = {v.name for v in values if v.type.tensor_type.elem_type in _FLOATS}
        return frozenset(found | {n for n, w in self.weights.items() if w.dtype.kind == "f"})

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs."""
        return [value.name for value in self.proto.graph.input]

    @property
    def outputs(self) -> list[str]:
        """The names of the graph's outputs."""
        return [value.name for value in self.proto.graph.output]

    def fresh(self) -> str:
        """A name that no value has."""
        self._count += 1
        return f"{PLANTED}_{self._count}"

    def set_weight(self, name: str, value: Array) -> None:
        """Add or replace an initializer."""
        self.weights[name] = value
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        for known in self.proto.graph.initializer:
            if known.name == name:
                known.CopyFrom(tensor)
                return
        self.proto.graph.initializer.append(tensor)

    def readers(self, name: str) -> tuple[str, ...]:
        """Names of the main graph's nodes that read a value."""
        return tuple(node.name for node in self.main.users(name))

    def matrices(self) -> Iterator[str]:
        """Floating-point weights of rank 2 and more that are multiplied or convolved with."""
        for name, weight in self.weights.items():
            users = {user.op_type for user in self.main.users(name)}
            floats = weight.ndim > 1 and weight.dtype.kind == "f" and weight.size > 1
            if floats and users & {"MatMul", "Gemm", "Conv"}:
                yield name


def _constant_of(node: onnx.NodeProto) -> Array | None:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    return np.asarray(value, np.int64 if "int" in attribute.name else np.float32)
