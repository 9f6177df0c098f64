"""describe: what a file holds, without reading its weights."""

from __future__ import annotations

import numpy as np

from graphs import Description, TensorInfo, describe
from tests.graphs.models import identity, net, write


def test_everything_is_counted(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20, "local" : 1], producer_name: "hand",
     producer_version: "3">
    net (float16[batch, 4] x, bool flag) => (float16[batch, 4] y)
    {
      h = local.Same (x)
      y = If (flag) <
        then_branch = yes () => (float16[batch, 4] a) { a = Mul (h, weight) },
        else_branch = no () => (float16[batch, 4] b) { b = Identity (h) }
      >
    }
    <domain: "local", opset_import: ["" : 20]>
    Same (x) => (y) { y = Identity (x) }
    """
    path = write(tmp_path / "model.onnx", text, weight=np.ones((4,), np.float16))
    assert describe(path) == Description(
        inputs=(
            TensorInfo("x", "float16", ("batch", 4)),
            TensorInfo("flag", "bool", ()),
        ),
        outputs=(TensorInfo("y", "float16", ("batch", 4)),),
        opset=20,
        opsets={"ai.onnx": 20, "local": 1},
        ir_version=10,
        producer="hand 3",
        nodes=4,
        parameters=4,
        bytes=8,
        operators={"Identity": 1, "If": 1, "Mul": 1, "local::Same": 1},
        functions=("local::Same",),
        metadata={},
    )


def test_the_most_frequent_operators_come_first(tmp_path):
    assert list(describe(net(tmp_path / "m.onnx", 1)).operators) == ["MatMul", "Relu"]


def test_tensors_print_as_recipes_write_them(tmp_path):
    path = identity(tmp_path / "m.onnx", dtype="double", dims="[batch, ?, 3]")
    assert str(describe(path).inputs[0]) == "z: float64[batch, ?, 3]"


def test_initializers_of_subgraphs_count(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[3] x, bool flag) => (float[3] y)
    {
      y = If (flag) <
        then_branch = yes () => (float[3] p) <float[3] weight = {1, 2, 3}> { p = Mul (x, weight) },
        else_branch = no () => (float[3] q) { q = Identity (x) }
      >
    }
    """
    assert describe(write(tmp_path / "model.onnx", text)).parameters == 3
