"""Members of different opset versions are converted to the highest, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import version_converter

from graphs import Combination, Ensemble, GraphError, Leaf, describe, fuse
from tests.graphs.models import run, write

VALUES = Combination("linear", "values", (0.5, 0.5), "logits")
X = np.array([[1.0, -2.0, 3.0]], np.float32)

# Squeeze takes its axes as an attribute up to opset 12 and as an input afterwards.
OLD = """
<ir_version: 7, opset_import: ["" : 12]>
net (float[b, 3] x) => (float[b, 3] logits)
{
  scaled = Mul (x, scale)
  column = Unsqueeze <axes = [2]> (scaled)
  logits = Squeeze <axes = [2]> (column)
}
"""
NEW = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[b, 3] x) => (float[b, 3] logits) { logits = Relu (x) }
"""


def fused(folder, *paths):
    leaves = tuple(Leaf(name, path) for name, path in zip("ab", paths, strict=True))
    fuse(Ensemble("root", leaves, VALUES), folder / "model.onnx")
    return folder / "model.onnx"


# 300 floats are more than passes through the converter, 3 are less.
@pytest.mark.parametrize("columns", [3, 300])
def test_an_old_member_is_converted(columns, tmp_path):
    scale = np.arange(columns, dtype=np.float32).reshape(1, columns)
    x = np.resize(X, (2, columns))
    texts = [text.replace("3]", f"{columns}]") for text in (OLD, NEW)]
    old = write(tmp_path / "old.onnx", texts[0], scale=scale)
    path = fused(tmp_path, old, write(tmp_path / "new.onnx", texts[1]))
    assert describe(path).opset == 21
    assert [str(info) for info in describe(path).inputs] == [f"x: float32[b, {columns}]"]
    assert np.array_equal(run(path, x=x), 0.5 * x * scale + 0.5 * np.maximum(x, 0))


def test_a_converted_member_keeps_the_shape_it_declares(tmp_path):
    # Two rows of scales leave b no choice, which the converter would write down.
    old = write(tmp_path / "old.onnx", OLD, scale=np.ones((2, 3), np.float32))
    path = fused(tmp_path, old, write(tmp_path / "new.onnx", NEW))
    assert [str(info) for info in describe(path).outputs] == ["logits: float32[b, 3]"]


def test_operators_of_other_domains_pass_the_converter(tmp_path):
    text = """
    <ir_version: 7, opset_import: ["" : 12, "com.microsoft" : 1]>
    net (float[b, 3] x) => (float[b, 3] logits) { logits = com.microsoft.QuickGelu (x) }
    """
    path = fused(tmp_path, write(tmp_path / "a.onnx", text), write(tmp_path / "b.onnx", NEW))
    gelu = X / (1 + np.exp(-1.702 * X))
    np.testing.assert_allclose(run(path, x=X), 0.5 * gelu + 0.5 * np.maximum(X, 0), rtol=1e-6)


def test_the_operators_of_ours_need_opset_18(tmp_path):
    paths = [write(tmp_path / f"{n}.onnx", OLD, scale=np.ones((1, 3), np.float32)) for n in "ab"]
    path = fused(tmp_path, *paths)
    assert describe(path).opset == 18
    assert np.array_equal(run(path, x=X), X)


def refusal(folder, *paths) -> GraphError:
    with pytest.raises(GraphError) as caught:
        fused(folder, *paths)
    return caught.value


def test_functions_do_not_pass_through_the_converter(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    net (float[b, 3] x) => (float[b, 3] logits) { logits = local.Same (x) }
    <domain: "local", opset_import: ["" : 20]>
    Same (x) => (y) { y = Identity (x) }
    """
    paths = write(tmp_path / "a.onnx", text), write(tmp_path / "b.onnx", NEW)
    error = refusal(tmp_path, *paths)
    assert error.message == (
        "member 'a' has opset 20 and model-local functions, and the others need opset 21"
    )
    assert error.hint == "export member 'a' again with opset 21"


def test_what_the_converter_cannot_do_is_told(tmp_path, monkeypatch):
    def refuse(proto, target):
        raise version_converter.ConvertError("No Adapter From Version 12 for Squeeze")

    monkeypatch.setattr(version_converter, "convert_version", refuse)
    scale = np.ones((1, 3), np.float32)
    paths = write(tmp_path / "a.onnx", OLD, scale=scale), write(tmp_path / "b.onnx", NEW)
    assert refusal(tmp_path, *paths).message == (
        "member 'a' has opset 12 and cannot be converted to 21: "
        "No Adapter From Version 12 for Squeeze"
    )


def test_other_domains_must_agree(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20, "custom" : {version}]>
    net (float[b, 3] x) => (float[b, 3] logits) {{ logits = custom.Thing (x) }}
    """
    paths = [write(tmp_path / f"{v}.onnx", text.format(version=v)) for v in (1, 2)]
    assert refusal(tmp_path, *paths).message == (
        "member 'a' imports version 1 of domain 'custom' and member 'b' version 2, "
        "wanted one version"
    )
