"""Every value as an output, functions inlined, weights where they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphs import Combination, Ensemble, GraphError, Leaf, expose, fuse, outline
from tests.graphs.models import net, write

BRANCHES = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[2, 3] x, bool c) => (float[2, 3] y)
{
  twice = Add (x, x)
  y = If (c) <
    then_branch = yes () => (float[2, 3] a) { inner = Neg (twice)  a = Exp (inner) },
    else_branch = no () => (float[2, 3] b) { b = Abs (twice) }
  >
}
"""


def run_exposed(path, folder, **feeds):
    options = ort.SessionOptions()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder)
    )
    return ort.InferenceSession(path.read_bytes(), options).run(None, feeds)


def wide(path, seed):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 64] x) => (float[batch, 32] logits)
    { hidden = MatMul (x, weight)  logits = Relu (hidden) }
    """
    weight = np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32)
    return write(path, text, weight=weight)


@pytest.fixture
def ensemble(tmp_path):
    members = tuple(Leaf(f"m{seed}", wide(tmp_path / f"{seed}.onnx", seed)) for seed in (0, 1))
    fuse(Ensemble("e", members, Combination("linear", "logits", (0.5, 0.5), "logits")),
         tmp_path / "fused.onnx")  # fmt: skip
    return tmp_path / "fused.onnx"


def test_every_value_of_the_graph_and_of_inlined_functions_is_an_output(ensemble, tmp_path):
    out = tmp_path / "elsewhere" / "exposed.onnx"
    out.parent.mkdir()
    exposure = expose(ensemble, out)
    assert {"m0/hidden", "m1/hidden", "interpolation/odds", "logits"} <= set(exposure.values)
    assert exposure.left_out == ()
    x = np.ones((3, 64), np.float32)
    found = dict(zip(exposure.values, run_exposed(out, tmp_path, x=x), strict=True))
    assert found["interpolation/odds"].shape == (2, 3, 32)
    (wanted,) = ort.InferenceSession(str(ensemble)).run(None, {"x": x})
    np.testing.assert_allclose(found["logits"], wanted, rtol=1e-6)


def test_weights_are_not_copied(ensemble, tmp_path):
    expose(ensemble, tmp_path / "exposed.onnx")
    assert not (tmp_path / "exposed.onnx.data").exists()
    data = (tmp_path / "fused.onnx.data").stat().st_size
    assert data == 2 * 64 * 32 * 4
    assert (tmp_path / "exposed.onnx").stat().st_size < data
    external = [w for w in onnx.load(tmp_path / "exposed.onnx", load_external_data=False)
                .graph.initializer if w.external_data]  # fmt: skip
    assert len(external) == 2


def test_only_what_was_asked_for_is_computed(ensemble, tmp_path):
    assert expose(ensemble, tmp_path / "exposed.onnx", ["m0/hidden"]).values == ("m0/hidden",)
    graph = onnx.load(tmp_path / "exposed.onnx", load_external_data=False).graph
    assert [node.op_type for node in graph.node] == ["MatMul"]


def test_shapes_in_place_of_values(ensemble, tmp_path):
    exposure = expose(ensemble, tmp_path / "shapes.onnx", what="shapes")
    found = run_exposed(tmp_path / "shapes.onnx", tmp_path, x=np.ones((3, 64), np.float32))
    shapes = dict(zip(exposure.values, map(list, found), strict=True))
    assert shapes["m0/hidden"] == [3, 32]
    assert shapes["interpolation/stack"] == [2, 3, 32]


def test_values_of_branches_are_left_out_and_named(tmp_path):
    path = write(tmp_path / "if.onnx", BRANCHES)
    exposure = expose(path, tmp_path / "exposed.onnx")
    assert exposure.values == ("twice", "y")
    assert [text.partition(": ")[2] for text in exposure.left_out] == ["inner", "a", "b"]
    assert outline(path).hidden == exposure.left_out


def test_a_value_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(GraphError, match=r"m\.onnx has no value 'nothing' to expose"):
        expose(net(tmp_path / "m.onnx", 0), tmp_path / "out.onnx", ["hidden", "nothing"])
    assert not (tmp_path / "out.onnx").exists()


def test_a_second_call_does_not_rename_the_values_of_the_first(tmp_path):
    """Names start with the call, so that two versions of a graph can be compared."""
    path = net(tmp_path / "m.onnx", 0)
    how = Combination("linear", "logits", (0.5, 0.5), "logits")
    inner = Ensemble("inner", (Leaf("a", path), Leaf("b", path)), how)
    fuse(Ensemble("e", (inner, Leaf("c", path)), how), tmp_path / "nested.onnx")
    names = [value for node in outline(tmp_path / "nested.onnx").nodes for value in node.outputs]
    assert {"interpolation/odds", "inner/interpolation/odds"} <= set(names)
    assert len(names) == len(set(names))
