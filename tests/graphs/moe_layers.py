"""Sparse layers as an export writes them, and what they compute, in numpy and float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from graphs import CONTRACTS
from graphs.contracts import DOMAIN, VERSION

__all__ = ["Layer", "write"]


@dataclass
class Layer:
    """Experts of two linear layers with a gated or plain activation between them."""

    experts: int = 4
    top_k: int = 2
    hidden: int = 16
    inner: int = 24
    bias: bool = False
    transposed: bool = False
    gated: bool = True
    out: int = 0
    seed: int = 0
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        high = 2 * self.inner if self.gated else self.inner
        wide = self.out or self.hidden
        shapes = {"up": (self.experts, high, self.hidden), "down": (self.experts, wide, self.inner)}
        for name, shape in shapes.items():
            drawn = random.normal(size=shape) / np.sqrt(shape[2])
            self.tensors[name] = drawn.astype(np.float32)
            if self.bias:
                offset = random.normal(size=shape[:2])
                self.tensors[f"{name}_bias"] = offset.astype(np.float32)

    def expected(self, x: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[T, out] in float64, by the definition."""
        weight = {name: tensor.astype(np.float64) for name, tensor in self.tensors.items()}
        result = np.zeros((len(x), self.out or self.hidden))
        for token, (row, chosen) in enumerate(zip(x.astype(np.float64), ids, strict=True)):
            for place, expert in enumerate(chosen):
                up = weight["up"][expert] @ row
                if self.bias:
                    up += weight["up_bias"][expert]
                gate, *linear = np.split(up, 2) if self.gated else (up,)
                inner = gate / (1 + np.exp(-gate)) * (linear[0] if linear else 1)
                down = weight["down"][expert] @ inner
                if self.bias:
                    down += weight["down_bias"][expert]
                result[token] += weights[token, place] * down
        return result

    def nodes(self, stem: str, x: str, ids: str, weights: str, y: str) -> list[onnx.NodeProto]:
        """From tokens [T, hidden] to tokens [T, out]."""

        def linear(name: str, source: str, spread: int) -> list[onnx.NodeProto]:
            tensor, before = f"{stem}.{name}", []
            if self.transposed:
                before = [helper.make_node("Transpose", [tensor], [f"{tensor}.T"], perm=[0, 2, 1])]
                tensor = f"{tensor}.T"
            inputs, kind = [source, ids, tensor], "ExpertLinear"
            if self.bias:
                inputs, kind = [*inputs, f"{stem}.{name}_bias"], "ExpertLinearBias"
            out = f"{stem}/{name}"
            node = helper.make_node(kind, inputs, [out], out, domain=DOMAIN, spread=spread)
            return [*before, node]

        def node(kind: str, inputs: list[str], outputs: list[str], **rest: int) -> onnx.NodeProto:
            named = [f"{stem}/{name}" for name in outputs]
            return helper.make_node(kind, inputs, named, named[0], **rest)

        inner = [node("Sigmoid", [f"{stem}/up"], ["sigmoid"])]
        gate = f"{stem}/up"
        if self.gated:
            inner = [node("Split", [gate], ["gate", "linear"], axis=1, num_outputs=2)]
            gate = f"{stem}/gate"
            inner.append(node("Sigmoid", [gate], ["sigmoid"]))
        inner.append(node("Mul", [gate, f"{stem}/sigmoid"], ["inner"]))
        if self.gated:
            inner.append(node("Mul", [f"{stem}/inner", f"{stem}/linear"], ["gated"]))
        last = f"{stem}/gated" if self.gated else f"{stem}/inner"
        return [
            *linear("up", x, self.top_k),
            *inner,
            *linear("down", last, 1),
            node("Reshape", [f"{stem}/down", f"{stem}.cube"], ["cube"]),
            node("Unsqueeze", [weights, "minus_one"], ["column"]),
            node("Mul", [f"{stem}/cube", f"{stem}/column"], ["weighted"]),
            helper.make_node("ReduceSum", [f"{stem}/weighted", "one"], [y], y, keepdims=0),
        ]

    def initializers(self, stem: str) -> list[onnx.TensorProto]:
        """Weights as they are stored."""
        stored = {}
        for name, tensor in self.tensors.items():
            swap = self.transposed and tensor.ndim == 3
            stored[name] = np.ascontiguousarray(tensor.transpose(0, 2, 1)) if swap else tensor
        stored["cube"] = np.array([-1, self.top_k, self.out or self.hidden])
        return [numpy_helper.from_array(a, f"{stem}.{name}") for name, a in stored.items()]


def write(path: Path, layer: Layer, *, external: bool = True, gating: int | None = None) -> Path:
    """A graph of the layer alone: x [T, hidden], ids and weights [T, k] in, y [T, out] out.

    With ``gating``, the attribute ``normalize`` of a ``TopKGating`` in front, logits [T, E] come
    in place of ids and weights.
    """
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    nodes = layer.nodes("moe", "x", "ids", "weights", "y")
    choices = [
        helper.make_tensor_value_info("ids", whole, ["tokens", layer.top_k]),
        helper.make_tensor_value_info("weights", real, ["tokens", layer.top_k]),
    ]
    inputs = choices
    if gating is not None:
        outputs = ["weights", "ids", "token_of_row", "row_of_slot", "offsets", "active"]
        sizes = {"num_experts": layer.experts, "k": layer.top_k, "normalize": gating}
        gate = helper.make_node("TopKGating", ["logits"], outputs, "gate", domain=DOMAIN, **sizes)
        nodes.insert(0, gate)
        inputs = [helper.make_tensor_value_info("logits", real, ["tokens", layer.experts])]
    used = {node.op_type for node in nodes if node.domain == DOMAIN}
    tools = [CONTRACTS[name].function(20) for name in sorted(used)]
    constants = [
        numpy_helper.from_array(np.array([-1]), "minus_one"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "moe",
        [
            helper.make_tensor_value_info("x", real, ["tokens", layer.hidden]),
            *inputs,
        ],
        [helper.make_tensor_value_info("y", real, ["tokens", layer.out or layer.hidden])],
        [*layer.initializers("moe"), *constants],
    )
    for name, tensor in (("up", layer.tensors["up"]), ("down", layer.tensors["down"])):
        dims = ["slots", tensor.shape[1]]
        graph.value_info.append(helper.make_tensor_value_info(f"moe/{name}", real, dims))
    graph.value_info.extend(choices if gating is not None else [])
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[ir.serde.serialize_function(tool) for tool in tools],
        ir_version=10,
    )
    data = f"{path.name}.data" if external else None
    onnx.save_model(
        model, str(path), save_as_external_data=external, location=data, size_threshold=64
    )
    return path
