"""mixed_precision: half where it is safe, float32 where it is not, casts only between the two."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from graphs import Combination, Ensemble, GraphError, Leaf, MixedPrecision, describe, fuse, rewrite
from tests.graphs.models import check_golden, run, text_of, write
from tests.graphs.test_rtx import plan_bytes

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
# Attention with a mask, an RMS norm, a layer norm, positions, a feed-forward layer and a head.
BLOCK = (
    HEAD
    + """
net (int64[batch, 3] ids, int64[batch, 3] mask) => (float[batch, 3, 5] logits)
{
  places = Cast <to = 1> (ids)
  turned = Mul (places, tenth)
  angle = Sin (turned)
  column = Unsqueeze (angle, last)
  x0 = Gather (embedding, ids)
  x = Add (x0, column)
  normal = LayerNormalization <axis = -1> (x, scale)
  q = MatMul (normal, wq)
  k = MatMul (normal, wk)
  kt = Transpose <perm = [0, 2, 1]> (k)
  scores = MatMul (q, kt)
  scaled = Mul (scores, tenth)
  seen = Cast <to = 9> (mask)
  bias = Where (seen, zero, lowest)
  wide = Unsqueeze (bias, one)
  masked = Add (scaled, wide)
  attention = Softmax <axis = -1> (masked)
  mixed = MatMul (attention, normal)
  y = Add (x, mixed)
  square = Mul (y, y)
  mean = ReduceMean <keepdims = 1> (square, last)
  above = Add (mean, eps)
  root = Sqrt (above)
  unit = Div (y, root)
  weighted = Mul (unit, scale)
  inner = MatMul (weighted, w1)
  active = Gelu (inner)
  logits = MatMul (active, w2)
}
"""
)
LOWERED = ("x0", "x", "q", "k", "kt", "scores", "mixed", "y", "inner", "active", "logits")


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (9, 4), "wq": (4, 4), "wk": (4, 4), "w1": (4, 8), "w2": (8, 5)}
    drawn = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    scalars = {"tenth": 0.1, "zero": 0.0, "lowest": np.finfo(np.float32).min, "eps": 1e-6}
    return {
        **drawn,
        **{name: np.array(value, np.float32) for name, value in scalars.items()},
        "scale": np.full(4, 1.5, np.float32),
        "last": np.array([-1]),
        "one": np.array([1]),
    }


def block(path, seed: int = 0):
    return write(path, BLOCK, **weights(seed))


def mixed(folder, source, **options):
    (report,) = rewrite(source, [MixedPrecision(**options)], folder / "mixed.onnx")
    return folder / "mixed.onnx", report


def types(path) -> dict[str, int]:
    """Element types of all values, as ONNX's own inference finds them."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    graph = model.graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    found = {info.name: info.type.tensor_type.elem_type for info in infos}
    return {**found, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def feeds(rows: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.ones((rows, 3), np.int64)
    mask[:, 2] = rng.integers(0, 2, rows)
    return {"ids": rng.integers(0, 9, (rows, 3)), "mask": mask}


def named(path):
    """Give nodes the names of their outputs, so that tests can speak of them."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, path)
    return path


def test_what_is_delicate_stays_in_float32(tmp_path):
    path, report = mixed(tmp_path, named(block(tmp_path / "m.onnx")))
    assert report.sites == LOWERED
    assert report.near_misses == ()
    found = types(path)
    for node in onnx.load(path).graph.node:
        floats = {found[n] for n in (*node.input, *node.output) if n} & {
            TensorProto.FLOAT, TensorProto.FLOAT16
        }  # fmt: skip
        if node.op_type == "Cast":
            continue
        wanted = {TensorProto.FLOAT16} if node.name in LOWERED else {TensorProto.FLOAT}
        assert not floats or floats == wanted, node.name
    check_golden("mixed_precision.txt", text_of(path))


def test_no_cast_follows_a_cast_and_none_is_there_twice(tmp_path):
    graph = onnx.load(mixed(tmp_path, block(tmp_path / "m.onnx"))[0]).graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    made = {node.output[0] for node in casts}
    keys = [(node.input[0], node.attribute[0].i) for node in casts]
    assert not made & {source for source, _ in keys}
    assert len(keys) == len(set(keys))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4))
def test_it_is_as_near_as_float16_allows(seed, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    source = block(folder / "m.onnx", seed)
    path, _ = mixed(folder, source)
    given_ = feeds(rows, seed)
    wanted, found = run(source, **given_), run(path, **given_)
    assert found.dtype == np.float32
    # 12 roundings of 2**-11 each in a row, amplified by products of width 8 at most
    assert np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()
    assert not np.array_equal(found, wanted)


def test_a_norm_survives_values_whose_squares_do_not_fit(tmp_path):
    text = (
        HEAD
        + """
    net (float[b, 4] x) => (float[b, 4] y)
    {
      h = Relu (x)  square = Mul (h, h)  mean = ReduceMean <keepdims = 1> (square, last)
      root = Sqrt (mean)  y = Div (h, root)
    }
    """
    )
    source = named(write(tmp_path / "m.onnx", text, last=np.array([-1])))
    path, report = mixed(tmp_path, source)
    assert report.sites == ("h",)
    x = np.array([[1000, 3000, 10, 300]], np.float32)
    np.testing.assert_allclose(run(path, x=x), run(source, x=x), rtol=1e-3)


def test_weights_are_rounded_to_nearest_and_stored_once(tmp_path):
    path, _ = mixed(tmp_path, block(tmp_path / "m.onnx"))
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name in ("embedding", "wq", "wk", "w1", "w2"):
        assert stored[name].dtype == np.float16
        assert np.array_equal(stored[name], weights()[name].astype(np.float16))
    assert stored["scale"].dtype == np.float32
    assert not any(name.endswith("/float16") for name in stored)


def test_large_weights_are_rounded_on_their_way_to_disk(tmp_path):
    text = HEAD + "net (float[b, 300] x) => (float[b, 300] y) { y = MatMul (x, w) }"
    w = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    source = write(tmp_path / "m.onnx", text, w=w)
    rewrite(source, [], tmp_path / "external.onnx")
    path, _ = mixed(tmp_path, tmp_path / "external.onnx")
    assert (tmp_path / "mixed.onnx.data").stat().st_size == 2 * w.size
    x = np.random.default_rng(1).normal(size=(2, 300)).astype(np.float32)
    np.testing.assert_allclose(run(path, x=x), x @ w, atol=0.1)


def test_a_weight_that_both_read_is_stored_in_both(tmp_path):
    text = (
        HEAD
        + """
    net (float[b, 4] x) => (float[b, 4] y, float[b, 4] z)
    { y = Add (x, w)  z = LayerNormalization (x, w) }
    """
    )
    path, _ = mixed(tmp_path, write(tmp_path / "m.onnx", text, w=np.full(4, 0.3, np.float32)))
    stored = {t.name: t.data_type for t in onnx.load(path).graph.initializer}
    assert stored == {"w": TensorProto.FLOAT, "w/float16": TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 65520.0, 1.0], "w holds 6.55e+04, more than float16 can"),
        ([1.0, 1e-9, 1.0], "w loses 1 of 3 values to zero in float16"),
        ([1e-7, 2e-7, 1e-7], "w moves by 14 % of its norm in float16"),
        ([1.0, np.inf, -np.inf], ""),
        ([65504.0, 65519.0, 0.0], ""),
    ],
)
def test_a_constant_that_does_not_fit_keeps_its_node(values, reason, tmp_path):
    text = HEAD + "net (float[b, 3] x) => (float[b, 3] y) { h = Tanh (x)  y = Mul (h, w) }"
    source = named(write(tmp_path / "m.onnx", text, w=np.array(values, np.float32)))
    path, report = mixed(tmp_path, source)
    assert [miss.reason for miss in report.near_misses] == [reason] * bool(reason)
    assert report.sites == (("h",) if reason else ("h", "y"))
    (weight,) = onnx.load(path).graph.initializer
    assert weight.data_type == (TensorProto.FLOAT if reason else TensorProto.FLOAT16)


def test_bfloat16_has_the_range_of_float32(tmp_path):
    text = HEAD + "net (float[b, 3] x) => (float[b, 3] y) { y = Mul (x, w) }"
    source = write(tmp_path / "m.onnx", text, w=np.array([1e30, 1e-30, 1], np.float32))
    path, report = mixed(tmp_path, source, precision="bfloat16")
    assert len(report.sites) == 1
    assert types(path)["w"] == TensorProto.BFLOAT16


def test_named_nodes_stay(tmp_path):
    path, report = mixed(
        tmp_path, named(block(tmp_path / "m.onnx")), keep_float32=("logits", "[qk]")
    )
    assert set(LOWERED) - set(report.sites) >= {"logits", "q", "k"}
    assert types(path)["w2"] == TensorProto.FLOAT


def test_inputs_and_outputs_are_lowered_when_asked(tmp_path):
    text = (
        HEAD
        + """
    net (float[b, 4] x, int64[b] n) => (float[b, 4] y, float[b, 4] z)
    { y = Softmax (x)  z = Tanh (x) }
    """
    )
    source = write(tmp_path / "m.onnx", text)
    path, _ = mixed(tmp_path, source, io="half")
    inputs, outputs = describe(path).inputs, describe(path).outputs
    assert [v.dtype for v in (*inputs, *outputs)] == ["float16", "int64", "float16", "float16"]
    assert [v.name for v in outputs] == ["y", "z"]
    kept = describe(mixed(tmp_path, source)[0])
    assert {v.dtype for v in kept.outputs} == {"float32"}


def test_bodies_of_control_flow_stay_with_what_they_capture(tmp_path):
    text = (
        HEAD
        + """
    net (float[3] x, bool flag) => (float[3] y)
    {
      h = Tanh (x)
      k = If (flag) <
        then_branch = yes () => (float[3] a) { a = Mul (h, w) },
        else_branch = no () => (float[3] b) { b = Identity (h) }
      >
      y = Relu (k)
    }
    """
    )
    source = named(write(tmp_path / "m.onnx", text, w=np.full(3, 2, np.float32)))
    path, report = mixed(tmp_path, source)
    assert report.sites == ("h", "y")
    assert [miss.reason for miss in report.near_misses] == ["the bodies of If stay in float32"]
    x = np.array([1, -2, 3], np.float32)
    for flag in (True, False):
        found = run(path, x=x, flag=np.array(flag))
        np.testing.assert_allclose(found, run(source, x=x, flag=np.array(flag)), atol=2e-3)


def test_interpolation_stays_in_float32(tmp_path):
    text = HEAD + "net (float[b, 4] x) => (float[b, 3] logits) { logits = MatMul (x, w) }"
    leaves = tuple(
        Leaf(name, write(tmp_path / f"{name}.onnx", text, w=np.full((4, 3), value, np.float32)))
        for name, value in (("a", 0.5), ("b", -0.25))
    )
    tree = Ensemble("root", leaves, Combination("linear", "logits", (0.5, 0.5), "logits"))
    reports = fuse(tree, tmp_path / "m.onnx", passes=[MixedPrecision()])
    assert "interpolation" not in reports[-1].sites
    assert {"a/MatMul", "b/MatMul"} <= set(reports[-1].sites)
    found = {n.name: n for n in onnx.load(tmp_path / "m.onnx").graph.node}
    assert found["interpolation"].input[0].endswith("/float32")
    assert found["interpolation"].output[0] == "logits"


def test_operators_of_which_nothing_is_known_stay(tmp_path):
    text = HEAD + "net (float[b, 4] x) => (float[b, 4] y) { h = Tanh (x)  y = Shrink (h) }"
    _, report = mixed(tmp_path, named(write(tmp_path / "m.onnx", text)))
    assert [(m.node, m.reason) for m in report.near_misses] == [
        ("y", "Shrink is not known to be safe")
    ]


def test_it_is_idempotent(tmp_path):
    path, _ = mixed(tmp_path, block(tmp_path / "m.onnx"))
    before = path.read_bytes()
    (again,) = rewrite(path, [MixedPrecision()], tmp_path / "again.onnx")
    assert again.sites == ()
    assert (tmp_path / "again.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        ("float16", {}, "there is no float32 to lower, the graph computes in float16"),
        ("float", {"keep_float32": ("head*",)}, "no node has a name like 'head*'"),
        ("float", {"precision": "int8"}, "the precision is 'int8', wanted float16 or bfloat16"),
    ],
)
def test_what_cannot_be_lowered_is_refused(dtype, options, message, tmp_path):
    text = HEAD + f"net ({dtype}[b, 4] x) => ({dtype}[b, 4] y) {{ y = Tanh (x) }}"
    with pytest.raises(GraphError) as caught:
        mixed(tmp_path, write(tmp_path / "m.onnx", text), **options)
    assert caught.value.message == message


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_tensorrt_builds_it(precision, tmp_path):
    path, _ = mixed(tmp_path, block(tmp_path / "m.onnx"), precision=precision)
    assert plan_bytes(path) > 0
