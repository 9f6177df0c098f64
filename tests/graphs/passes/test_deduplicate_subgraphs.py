"""deduplicate_subgraphs: what members compute alike is computed once, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import graphs.fusing
from graphs import (
    Combination,
    DeduplicateSubgraphs,
    Ensemble,
    Leaf,
    StripExporterMetadata,
    describe,
    fuse,
    outline,
    rewrite,
)
from graphs.passes.remove_unused_nodes import RemoveUnusedNodes
from tests.graphs.models import check_golden, run, session, text_of, write

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
LAYERS = (
    HEAD
    + """
net (float[batch, 4] x) => (float[batch, 3] logits)
{
  h1 = MatMul (x, w1)
  h2 = Tanh (h1)
  h3 = MatMul (h2, w2)
  h4 = Relu (h3)
  h5 = MatMul (h4, w3)
  logits = Add (h5, b3)
}
"""
)
SHAPES = {"w1": (4, 4), "w2": (4, 4), "w3": (4, 3), "b3": (3,)}
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def layers(path, *seeds):
    """A net whose weights come from one seed each, in the order of ``SHAPES``."""
    weights = {
        name: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        for (name, shape), seed in zip(SHAPES.items(), seeds, strict=True)
    }
    return write(path, LAYERS, **weights)


def ensemble(folder, *seeds):
    leaves = tuple(
        Leaf(name, layers(folder / f"{name}.onnx", *own))
        for name, own in zip("abcdefgh", seeds, strict=False)
    )
    how = Combination("linear", "values", (1 / len(leaves),) * len(leaves), "logits")
    return Ensemble("root", leaves, how)


def fused(tree, path, monkeypatch=None):
    """The graph and the pass's report; as it was before there was the pass, with monkeypatch."""
    if monkeypatch is not None:
        with monkeypatch.context() as patch:
            patch.setattr(graphs.fusing, "_cleaning", lambda _: (RemoveUnusedNodes(),))
            fuse(tree, path)
            return path, None
    reports = fuse(tree, path, passes=[StripExporterMetadata()])
    return path, next(r for r in reports if r.name == "deduplicate_subgraphs")


def nodes(path) -> list[str]:
    return [node.name for node in onnx.load(path).graph.node]


def rewritten(folder, text, **weights):
    (report,) = rewrite(
        write(folder / "m.onnx", text, **weights), [DeduplicateSubgraphs()], folder / "o.onnx"
    )
    return folder / "o.onnx", report


def test_a_frozen_backbone_runs_once(tmp_path):
    tree = ensemble(tmp_path, (1, 2, 3, 4), (1, 2, 5, 6), (1, 2, 7, 8))
    path, report = fused(tree, tmp_path / "m.onnx")
    found = describe(path).operators
    assert (found["MatMul"], found["Tanh"], found["Relu"]) == (2 + 3, 1, 1)
    assert report.sites == tuple(
        f"{m}/{n}" for m in "bc" for n in ("MatMul", "Tanh", "MatMul#1", "Relu")
    )
    check_golden("deduplicate_subgraphs.txt", text_of(path))


def test_a_shared_node_names_its_members(tmp_path):
    tree = ensemble(tmp_path, (1, 2, 3, 4), (1, 2, 5, 6), (9, 2, 7, 8), (1, 8, 9, 9))
    path, _ = fused(tree, tmp_path / "m.onnx")
    found = {node.name: node.member for node in outline(path).nodes}
    assert found["a/MatMul"] == "a, b, d"
    assert found["a/Relu"] == "a, b"
    assert found["c/MatMul"] == "c"


def test_what_differs_first_is_reported(tmp_path):
    tree = ensemble(tmp_path, (1, 2, 3, 4), (1, 5, 3, 4))
    _, report = fused(tree, tmp_path / "m.onnx")
    (miss,) = report.near_misses
    assert (miss.node, miss.reason) == (
        "b/MatMul#1",
        "b shares 2 of its 6 nodes with a; here b/w2 differs from a/w2 in 16 of 16 elements",
    )


def test_one_changed_element_is_counted(tmp_path):
    tree = ensemble(tmp_path, (1, 2, 3, 4), (1, 2, 3, 4))
    proto = onnx.load(tmp_path / "b.onnx")
    weight = proto.graph.initializer[0]
    changed = numpy_helper.to_array(weight).copy()
    changed[2, 1] = np.nextafter(changed[2, 1], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(proto, tmp_path / "b.onnx")
    _, report = fused(tree, tmp_path / "m.onnx")
    (miss,) = report.near_misses
    assert miss.reason.endswith(
        "0 of its 6 nodes with a; here b/w1 differs from a/w1 in 1 of 16 elements"
    )


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.tuples(*[st.integers(0, 1)] * 4), min_size=2, max_size=4),
    rows=st.integers(0, 4),
    scale=st.sampled_from([0.0, 1.0, 1e30, np.inf, np.nan]),
)
def test_outputs_keep_every_bit(seeds, rows, scale, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    tree = ensemble(folder, *seeds)
    with pytest.MonkeyPatch.context() as patch:
        plain, _ = fused(tree, folder / "plain.onnx", patch)
    path, report = fused(tree, folder / "m.onnx")
    x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32) * np.float32(scale)
    assert run(path, x=x).tobytes() == run(plain, x=x).tobytes()
    # as many MatMul nodes are left as there are different prefixes
    prefixes = {own[:depth] for own in seeds for depth in (1, 2, 3)}
    assert describe(path).operators["MatMul"] == len(prefixes)
    assert describe(plain).operators["MatMul"] == 3 * len(seeds)
    assert bool(report.near_misses) == (len(set(seeds)) > 1)


def test_outputs_keep_their_names(tmp_path):
    text = (
        HEAD
        + """
    net (float[3] x) => (float[3] y, float[3] z, float[3] u)
    { y = Relu (x)  z = Relu (x)  v = Relu (x)  u = Neg (v) }
    """
    )
    path, report = rewritten(tmp_path, text)
    assert len(report.sites) == 2
    assert describe(path).operators == {"Relu": 1, "Identity": 1, "Neg": 1}
    x = np.array([1, -2, 3], np.float32)
    y, z, u = session(path).run(None, {"x": x})
    assert [o.name for o in describe(path).outputs] == ["y", "z", "u"]
    assert y.tobytes() == z.tobytes() == (-u).tobytes()
    (again,) = rewrite(path, [DeduplicateSubgraphs()], tmp_path / "again.onnx")
    assert again.sites == ()


BRANCHES = (
    HEAD
    + """
net (float[3] x, bool p) => (float[3] y, float[3] z)
{{
  r = Relu (x)
  y = If (p) <
    then_branch = yes () => (float[3] a) {{ inner = Relu (x)  a = Mul (inner, inner) }},
    else_branch = no () => (float[3] b) {{ b = Neg (x) }}
  >
  s = Sub (r, x)
  z = If (p) <
    then_branch = si () => (float[3] c) {{ other = Relu (x)  c = Mul (other, other) }},
    else_branch = non () => (float[3] d) {{ d = {other} (x) }}
  >
}}
"""
)


@pytest.mark.parametrize(("other", "left"), [("Neg", 1), ("Abs", 2)])
def test_control_flow_folds_where_bodies_agree(other, left, tmp_path):
    text = BRANCHES.format(other=other).replace("float[3] z)", "float[3] z, float[3] s)")
    path, report = rewritten(tmp_path, text)
    assert describe(path).operators["If"] == left
    assert report.sites[0] == "Relu"
    x = np.array([1, -2, 3], np.float32)
    for flag in (True, False):
        feeds = {"x": x, "p": np.array(flag)}
        wanted = session(tmp_path / "m.onnx").run(None, feeds)
        found = session(path).run(None, feeds)
        assert [f.tobytes() for f in found] == [w.tobytes() for w in wanted]
    # the body reads what the main graph has computed already
    inner = [n.op_type for n in onnx.load(path).graph.node[1].attribute[0].g.node]
    assert inner in (["Mul"], ["Neg"])


@pytest.mark.parametrize(
    ("one", "two", "kept"),
    [
        ("Add (x, w)", "Add (w, x)", 1),
        ("Sub (x, w)", "Sub (w, x)", 2),
        ("Max (x, w)", "Max (w, x)", 2),
        ("Clip (x, w0)", "Clip (x, , w0)", 2),
        ("Clip (x, , w0)", "Clip (x, , w0)", 1),
        ("Concat <axis = 0> (x, x)", "Concat <axis = 0> (x, x)", 1),
        ("LeakyRelu <alpha = 0.0> (x)", "LeakyRelu <alpha = -0.0> (x)", 2),
        ("Bernoulli (x)", "Bernoulli (x)", 2),
        ("RandomNormalLike (x)", "RandomNormalLike (x)", 2),
        ("Dropout (x, w0, on)", "Dropout (x, w0, on)", 2),
        ("Dropout (x, w0)", "Dropout (x, w0)", 1),
    ],
)
def test_only_what_is_equal_folds(one, two, kept, tmp_path):
    text = HEAD + f"net (float[3] x) => (float[n] y) {{ a = {one}  b = {two}  y = Div (a, b) }}"
    weights = {
        "w": np.ones(3, np.float32), "w0": np.array(0.5, np.float32), "on": np.array(True)
    }  # fmt: skip
    path, _ = rewritten(tmp_path, text, **weights)
    assert sum(describe(path).operators.values()) == kept + 1


def test_functions_fold_unless_they_draw(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    net (float[3] x) => (float[3] y)
    {
      a = local.Same (x)  b = local.Same (x)  c = local.Draws (x)  d = local.Draws (x)
      e = Sub (a, b)  f = Sub (c, d)  y = Add (e, f)
    }
    <domain: "local", opset_import: ["" : 20]>
    Same (x) => (y) { y = Identity (x) }
    <domain: "local", opset_import: ["" : 20, "local" : 1]>
    Draws (x) => (y) { y = RandomNormalLike (x) }
    """
    path, _ = rewritten(tmp_path, text)
    found = describe(path).operators
    assert found == {
        "local::Same": 1, "local::Draws": 2, "Sub": 2, "Add": 1,
    }  # fmt: skip


def test_an_output_that_is_left_out_is_not_needed_by_name(tmp_path):
    text = (
        HEAD
        + """
    net (float[2, 3] x) => (float[2, 3] y)
    {
      one, , scale = LayerNormalization (x, ones)
      two, mean, other = LayerNormalization (x, ones)
      p = Mul (one, scale)  r = Add (two, mean)  q = Mul (r, other)  y = Sub (p, q)
    }
    """
    )
    path, report = rewritten(tmp_path, text, ones=np.ones(3, np.float32))
    assert report.sites == ()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.isfinite(run(path, x=x)).all()


def test_a_pass_that_fusing_ran_may_be_named(tmp_path):
    tree = ensemble(tmp_path, (1, 2, 3, 4), (1, 2, 5, 6))
    required = ["deduplicate_subgraphs"]
    reports = fuse(tree, tmp_path / "m.onnx", passes=[DeduplicateSubgraphs()], required=required)
    assert [bool(r.sites) for r in reports if r.name in required] == [True, False]
