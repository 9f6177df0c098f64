"""ONNX files with a known amount of work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["products"]


def products(path: Path, count: int, *, width: int = 64, seed: int = 0) -> Path:
    """``x`` [batch, width] times ``count`` square matrices in a row."""
    draw = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(draw.normal(size=(width, width)).astype("float32") / 8, f"w{i}")
        for i in range(count)
    ]
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path
