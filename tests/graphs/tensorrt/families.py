"""Every family of graphs that this project makes, small, without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from graphs import (
    Combination,
    DeduplicateInitializers,
    DeduplicateSubgraphs,
    Ensemble,
    ExpertsToBatched,
    ExpertsToConditionals,
    ExpertsToDense,
    ExpertsToRows,
    Gate,
    Leaf,
    MixedPrecision,
    Pass,
    SkipGatedMembers,
    fuse,
    rewrite,
)
from tests.graphs import moe_layers
from tests.graphs.models import identities, net, write

__all__ = ["families"]

_GATE = """<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4] x) => (float[batch, 2] scores) { scores = MatMul (x, weight) }"""


def families(folder: Path) -> Iterator[Path]:
    """The paths of the written graphs."""
    yield from _ensembles(folder)
    yield from _gated(folder)
    yield from _experts(folder)


def _ensembles(folder: Path) -> Iterator[Path]:
    for dtype in ("float", "float16"):
        for kind, space in (
            ("linear", "logits"), ("linear", "probabilities"), ("linear", "values"),
            ("log_linear", "logits"), ("log_linear", "probabilities"),
        ):  # fmt: skip
            combination = Combination(kind, space, (0.5, 0.25, 0.25), "logits")
            tree = Ensemble("root", identities(folder, 3, dtype=dtype), combination)
            path = folder / f"{kind}_{space}_{dtype}.onnx"
            fuse(tree, path)
            yield path
    combination = Combination("log_linear", "logits", (0.5, 0.5), "logits")
    leaves = [Leaf(name, net(folder / f"{name}.onnx", seed)) for seed, name in enumerate("abc")]
    inner = Ensemble("inner", (leaves[0], leaves[1]), combination)
    tree = Ensemble("root", (inner, leaves[2]), combination)
    for name, passes in {
        "nested": [DeduplicateInitializers(), DeduplicateSubgraphs()],
        "mixed": [MixedPrecision("float16")],
    }.items():
        fuse(tree, folder / f"{name}.onnx", passes=passes)
        yield folder / f"{name}.onnx"


def _gated(folder: Path) -> Iterator[Path]:
    weight = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    gate = Leaf("gate", write(folder / "gate.onnx", _GATE, weight=weight))
    leaves = tuple(Leaf(name, net(folder / f"{name}.onnx", i)) for i, name in enumerate("ab"))
    for skip in (False, True):
        for kind, activation in (("linear", "softmax"), ("log_linear", "softplus")):
            tree = Ensemble(
                "root", leaves, Combination(kind, "logits", (), "logits"),
                gate=Gate(gate, "scores", 1, activation),
            )  # fmt: skip
            path = folder / f"gated_{kind}_{skip}.onnx"
            fuse(tree, path, passes=[SkipGatedMembers()] if skip else [])
            yield path


def _experts(folder: Path) -> Iterator[Path]:
    lowerings: tuple[Pass, ...] = (
        ExpertsToBatched(), ExpertsToConditionals(), ExpertsToDense(), ExpertsToRows(),
    )  # fmt: skip
    for bias in (False, True):
        layer = moe_layers.Layer(bias=bias, transposed=bias)
        source = moe_layers.write(folder / f"layer_{bias}.onnx", layer, gating=1)
        for lowering in lowerings:
            path = folder / f"{lowering.name}_{bias}.onnx"
            rewrite(source, [lowering], path, required=[lowering.name])
            yield path
