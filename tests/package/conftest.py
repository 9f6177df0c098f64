"""Bundles made by hand: a graph of any interface, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.bundle import Manifest, TensorRecord, hash_file

_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bfloat16": TensorProto.BFLOAT16,
}
Shape = tuple[int | str, ...]


def _graph(path: Path, inputs: dict[str, tuple[str, Shape]], outputs: dict[str, Shape]) -> None:
    first = next(iter(inputs))
    values = [helper.make_tensor_value_info(n, _TYPES[t], s) for n, (t, s) in inputs.items()]
    made = [
        helper.make_tensor_value_info(name, _TYPES[inputs[first][0]], shape)
        for name, shape in outputs.items()
    ]
    nodes = [helper.make_node("Identity", [first], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "graph", values, made)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle and return its folder."""

    def make(
        name: str = "net",
        inputs: dict[str, tuple[str, Shape]] | None = None,
        outputs: dict[str, Shape] | None = None,
        shapes: dict[str, tuple[int, int, int]] | None = None,
        *,
        verdict: str = "passed",
        law: str = "within the limit",
    ) -> Path:
        inputs = inputs or {"x": ("float32", ("batch", 6))}
        outputs = outputs or {"y": ("batch", 6)}
        folder = tmp_path / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        _graph(folder / "model.onnx", inputs, outputs)
        check = {"gate": "row order", "status": "pass", "detail": law}
        (folder / "parity.json").write_text(json.dumps({"verdicts": [{"checks": [check]}]}))
        limits = {"int64": (0, 10)}
        Manifest(
            root="..", verdict=verdict, target="onnx", opset=20, seed=0,
            inputs=tuple(
                TensorRecord(name=n, dtype=t, shape=s, low=limits.get(t, (None, None))[0],
                             high=limits.get(t, (None, None))[1])
                for n, (t, s) in inputs.items()
            ),
            outputs=(), shapes=shapes or {"batch": (1, 4, 8)}, engine=None, versions={}, sources=(),
            files={each: hash_file(folder / each) for each in ("model.onnx", "parity.json")},
        ).write(folder / "manifest.json")  # fmt: skip
        return folder

    return make
