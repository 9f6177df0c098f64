"""Faults to plant in an exported graph; each names the nodes that a localisation may name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class Planted:
    """A broken copy of a model, and the names of the nodes that are wrong in it."""

    kind: str
    model: onnx.ModelProto
    nodes: frozenset[str]


def faults(healthy: onnx.ModelProto, places: int = 2) -> Iterator[Planted]:
    """Every kind at up to so many places."""
    for kind, plant in KINDS.items():
        for place in range(places):
            model = onnx.ModelProto()
            model.CopyFrom(healthy)
            nodes = plant(model, place)
            if nodes:
                yield Planted(kind, model, frozenset(nodes))


def of(model: onnx.ModelProto, *ops: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ops]


def weight(model: onnx.ModelProto, name: str) -> np.ndarray | None:
    found = [w for w in model.graph.initializer if w.name == name]
    return numpy_helper.to_array(found[0]).copy() if found else None


def set_weight(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))


def changed_weight(
    ops: tuple[str, ...],
    position: int,
    change: Callable[[np.ndarray], np.ndarray],
    wanted: Callable[[np.ndarray], bool] = lambda _: True,
):
    """A fault in the weight that nodes of some operators read at ``position``."""

    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        names = [n.input[position] for n in of(model, *ops) if len(n.input) > position]
        arrays = {name: weight(model, name) for name in dict.fromkeys(names)}
        usable = [name for name, array in arrays.items() if array is not None and wanted(array)]
        if place >= len(usable):
            return []
        name = usable[place]
        set_weight(model, name, change(arrays[name]).astype(arrays[name].dtype))
        return [node.name for node in model.graph.node if name in node.input]

    return plant


def changed_attribute(op: str, name: str, value: object):
    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        nodes = of(model, op)[place : place + 1]
        for node in nodes:
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])
        return [node.name for node in nodes]

    return plant


def removed(*ops: str):
    """Readers get the node's first input instead of its output."""

    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        nodes = of(model, *ops)[place : place + 1]
        users = []
        for node in nodes:
            for user in model.graph.node:
                if node.output[0] in user.input:
                    users.append(user.name)
                    names = [node.input[0] if i == node.output[0] else i for i in user.input]
                    del user.input[:]
                    user.input.extend(names)
            model.graph.node.remove(node)
        return users

    return plant


def inserted(op: str, *ops: str, constant: float | None = None, **attributes: object):
    """A node of ``op`` between a node and its readers."""

    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        nodes = of(model, *ops)
        if place >= len(nodes):
            return []
        node = nodes[place]
        old, at = node.output[0], list(model.graph.node).index(node)
        node.output[0] = "hidden by a fault"
        inputs = [node.output[0]]
        if constant is not None:
            factor = numpy_helper.from_array(np.array(constant, np.float32), "planted constant")
            model.graph.initializer.append(factor)
            inputs.append(factor.name)
        made = helper.make_node(op, inputs, [old], name="planted", **attributes)
        model.graph.node.insert(at + 1, made)
        return [node.name, "planted"]

    return plant


def swapped_inputs(*ops: str):
    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        nodes = [node for node in of(model, *ops) if len(set(node.input)) > 1]
        for node in nodes[place : place + 1]:
            names = [node.input[1], node.input[0], *node.input[2:]]
            del node.input[:]
            node.input.extend(names)
        return [node.name for node in nodes[place : place + 1]]

    return plant


def another_operator(op: str, *ops: str):
    def plant(model: onnx.ModelProto, place: int) -> list[str]:
        nodes = of(model, *ops)[place : place + 1]
        for node in nodes:
            node.op_type = op
            del node.attribute[:]
        return [node.name for node in nodes]

    return plant


def row_scaled(array: np.ndarray) -> np.ndarray:
    array[array.shape[0] // 2] *= 1.0003
    return array


def one_percent_off(array: np.ndarray) -> np.ndarray:
    array[0] *= 1.01
    return array


MATRICES = ("MatMul", "Gemm")
KINDS = {
    "weight row scaled by 0.03 %": changed_weight(MATRICES, 1, row_scaled),
    "matrix scaled by 0.03 %": changed_weight(MATRICES, 1, lambda w: w * 1.0003),
    "bias dropped": changed_weight(("Gemm",), 2, np.zeros_like, np.any),
    "added bias dropped": changed_weight(("Add",), 0, np.zeros_like, np.any),
    "norm's weight off by 1 %": changed_weight(("LayerNormalization",), 1, lambda w: w * 1.01),
    "square matrix transposed": changed_weight(
        MATRICES, 1, lambda w: w.T, lambda w: w.ndim == 2 and w.shape[0] == w.shape[1]
    ),
    "embeddings changed": changed_weight(("Gather",), 0, lambda w: w * 1.001, lambda w: w.ndim > 1),
    "interpolation weight off by 1 %": changed_weight(("LinearInterpolation",), 1, one_percent_off),
    "wrong softmax axis": changed_attribute("Softmax", "axis", -2),
    "wrong epsilon": changed_attribute("LayerNormalization", "epsilon", 1e-3),
    "tanh for erf": changed_attribute("Gelu", "approximate", "tanh"),
    "another activation": another_operator("Sigmoid", "Tanh", "Relu", "Gelu"),
    "product scaled": changed_attribute("Gemm", "alpha", 1.001),
    "node removed": removed("Tanh", "Relu", "Gelu", "LayerNormalization"),
    "node inserted": inserted("Mul", "Gemm", "MatMul", "Tanh", constant=1.001),
    "float16 in between": inserted("Cast", "Gemm", to=onnx.TensorProto.FLOAT16),
    "members swapped": swapped_inputs("Concat"),
    "inputs swapped": swapped_inputs("Sub", "Div", "GreaterOrEqual"),
}
