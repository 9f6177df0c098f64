"""TensorRT-RTX's parser takes fused graphs, functions included, and its builder builds them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from graphs import Combination, Ensemble, Gate, Leaf, SkipGatedMembers, fuse
from tests.graphs.models import identities, net, write

pytestmark = pytest.mark.rtx

# In a process of its own: a builder that crashes must not take the tests with it.
BUILD = """
import sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
for index in range(network.num_inputs):
    tensor = network.get_input(index)
    sizes = [[size if dim < 0 else dim for dim in tensor.shape] for size in (1, 4, 16)]
    profile.set_shape(tensor.name, *sizes)
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
print(0 if plan is None else plan.nbytes)
"""


def plan_bytes(path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize(
    ("kind", "space"),
    [
        ("linear", "logits"),
        ("linear", "probabilities"),
        ("linear", "values"),
        ("log_linear", "logits"),
        ("log_linear", "probabilities"),
    ],
)
def test_every_combination_builds(kind, space, dtype, tmp_path):
    combination = Combination(kind, space, (0.5, 0.25, 0.25), "logits")
    tree = Ensemble("root", identities(tmp_path, 3, dtype=dtype), combination)
    fuse(tree, tmp_path / "model.onnx")
    assert plan_bytes(tmp_path / "model.onnx") > 0


def test_a_nested_ensemble_builds(tmp_path):
    combination = Combination("log_linear", "logits", (0.5, 0.5), "logits")
    leaves = [Leaf(name, net(tmp_path / f"{name}.onnx", seed)) for seed, name in enumerate("abc")]
    inner = Ensemble("inner", (leaves[0], leaves[1]), combination)
    outer = dataclasses.replace(combination, kind="linear")
    fuse(Ensemble("root", (inner, leaves[2]), outer), tmp_path / "model.onnx")
    assert plan_bytes(tmp_path / "model.onnx") > 0


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("kind", "activation"), [("linear", "softmax"), ("log_linear", "softplus")]
)
def test_a_gated_ensemble_builds_with_and_without_members_behind_an_if(
    kind, activation, skip, tmp_path
):
    leaves = tuple(Leaf(name, net(tmp_path / f"{name}.onnx", i)) for i, name in enumerate("ab"))
    text = """<ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 4] x) => (float[batch, 2] scores) { scores = MatMul (x, weight) }"""
    weight = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    model = Leaf("gate", write(tmp_path / "gate.onnx", text, weight=weight))
    combination = Combination(kind, "logits", (), "logits")
    tree = Ensemble("root", leaves, combination, gate=Gate(model, "scores", 1, activation))
    passes = [SkipGatedMembers()] if skip else []
    fuse(tree, tmp_path / "model.onnx", passes=passes, required=[step.name for step in passes])
    assert plan_bytes(tmp_path / "model.onnx") > 0
