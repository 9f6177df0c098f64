"""skip_gated_members: the same result to the last bit, and what has no weight does not run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs import (
    Combination,
    DeduplicateSubgraphs,
    Ensemble,
    Gate,
    GraphError,
    Leaf,
    SkipGatedMembers,
    fuse,
    rewrite,
)
from tests.graphs.models import check_golden, identity, net, run, session, text_of, write

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
# Cannot run where the input ``trap`` is not 0: it reads a table of one out of its bounds.
TRAP = """<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4] x, int64 trap) => (float[batch, 3] logits)
{
  table = Constant <value_floats = [1.0]> ()
  one = Gather (table, trap)
  hidden = MatMul (x, weight)
  logits = Mul (hidden, one)
}"""
TRUNK = """<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4] x) => (float[batch, 3] logits)
{ shared = Tanh (x)  logits = MatMul (shared, weight) }"""


def ensemble(folder, texts, kind="linear", space="logits", top_k=None):
    """Members with random weights, and a gate that passes on its input ``s``."""
    count = len(texts)
    leaves = tuple(
        Leaf(f"m{i}", net(folder / f"m{i}.onnx", i, text)) for i, text in enumerate(texts)
    )
    scores = identity(folder / "gate.onnx", output="scores", dims=f"[batch, {count}]")
    gate = Gate(Leaf("gate", scores, {"z": "s"}), "scores", top_k)
    return Ensemble("root", leaves, Combination(kind, space, (), "logits"), gate=gate)


def built(folder, tree, *passes):
    """The fused graph and the same with passes: paths and the last report."""
    plain, path = folder / "plain.onnx", folder / "skipping.onnx"
    fuse(tree, plain)
    report = rewrite(plain, passes, path)[-1]
    return plain, path, report


DEFAULT = TRUNK.replace("Tanh", "Neg")


@pytest.fixture(scope="module", params=["linear", "log_linear", "values"])
def pair(request, tmp_path_factory):
    """Sessions of a plain and a skipping graph of three members, top 2."""
    folder = tmp_path_factory.mktemp(request.param)
    kind, space = ("linear", "values") if request.param == "values" else (request.param, "logits")
    tree = ensemble(folder, [DEFAULT] * 3, kind, space, top_k=2)
    plain, path, report = built(folder, tree, SkipGatedMembers())
    assert report.sites == ("m0/logits", "m1/logits", "m2/logits")
    assert report.near_misses == ()
    return session(plain), session(path)


SCORES = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-100, 100, width=32))


@given(
    x=hnp.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32)),
    scores=hnp.arrays(np.float32, (3, 3), elements=SCORES),
)
def test_the_skipping_graph_equals_the_plain_one_to_the_last_bit(pair, x, scores):
    plain, skipping = (one.run(None, {"x": x, "s": scores})[0] for one in pair)
    assert plain.tobytes() == skipping.tobytes()


def test_a_member_without_weight_does_not_run(tmp_path):
    tree = ensemble(tmp_path, [DEFAULT, TRAP], top_k=1)
    plain, path, _ = built(tmp_path, tree, SkipGatedMembers())
    trapped = {"x": X, "trap": np.array(7, np.int64)}
    first = np.tile(np.float32([1, 0]), (5, 1))
    with pytest.raises(Exception, match="out of data bounds"):
        run(plain, **trapped, s=first)
    assert np.isfinite(run(path, **trapped, s=first)).all()
    one_row_wants_it = first.copy()
    one_row_wants_it[3] = [0, 1]
    with pytest.raises(Exception, match="out of data bounds"):
        run(path, **trapped, s=one_row_wants_it)


def test_what_others_use_stays_outside_and_initializers_too(tmp_path):
    tree = ensemble(tmp_path, [TRUNK, TRUNK], top_k=1)
    _, path, report = built(tmp_path, tree, DeduplicateSubgraphs(), SkipGatedMembers())
    assert report.sites == ("m0/logits", "m1/logits")
    graph = onnx.load(path).graph
    assert sum(node.op_type == "Tanh" for node in graph.node) == 1
    branches = [
        attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute
    ]
    assert sorted(node.op_type for branch in branches for node in branch.node) == [
        "ConstantOfShape", "ConstantOfShape", "MatMul", "MatMul",
    ]  # fmt: skip
    assert not any(branch.initializer for branch in branches)
    outputs = [value.name for branch in branches for value in branch.output]
    assert len(set(outputs)) == len(outputs)
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_the_rewritten_graph_is_the_stored_text(tmp_path):
    tree = ensemble(tmp_path, [DEFAULT] * 2, top_k=1)
    _, path, _ = built(tmp_path, tree, SkipGatedMembers())
    check_golden("skip_gated_members.txt", text_of(path).split("<\n  domain")[0])


def test_an_outer_member_is_skipped_whole_and_ifs_are_not_nested(tmp_path):
    for name in ("inner", "outer"):
        (tmp_path / name).mkdir()
    inner = ensemble(tmp_path / "inner", [DEFAULT] * 2, top_k=1)
    whole = Ensemble("inner", inner.members, inner.combination, gate=inner.gate)
    leaf = Leaf("leaf", net(tmp_path / "leaf.onnx", 7))
    scores = identity(tmp_path / "gate.onnx", output="scores", dims="[batch, 2]")
    gate = Gate(Leaf("gate", scores, {"z": "t"}), "scores", 1)
    tree = Ensemble("root", (whole, leaf), inner.combination, gate=gate)
    plain, path, report = built(tmp_path, tree, SkipGatedMembers())
    assert report.sites == ("inner/logits", "leaf/logits")
    s, t = np.random.default_rng(1).normal(size=(2, 5, 2)).astype(np.float32)
    for scored in (t, np.float32([[1, 0]] * 5), np.float32([[0, 1]] * 5)):
        feeds = {"x": X, "s": s, "t": scored}
        assert run(plain, **feeds).tobytes() == run(path, **feeds).tobytes()


@given(
    x=hnp.arrays(np.float32, (3, 4), elements=st.floats(-3, 3, width=32)),
    scores=hnp.arrays(np.float32, (3, 3), elements=st.floats(-6, 6, width=32)),
)
def test_above_zero_the_distance_is_at_most_the_weight_that_was_skipped(thresholded, x, scores):
    plain, skipping = (
        np.exp(one.run(None, {"x": x, "s": scores})[0].astype(np.float64)) for one in thresholded
    )
    weights = np.exp(scores.astype(np.float64))
    weights /= weights.sum(-1, keepdims=True)
    skipped = weights[:, weights.max(0) <= THRESHOLD * (1 + 1e-6)].sum(-1)
    distance = np.abs(plain - skipping).sum(-1) / 2
    assert np.all(distance <= skipped + 1e-6)
    assert np.all(np.abs(skipping.sum(-1) - 1) < 1e-5)


THRESHOLD = 0.2


@pytest.fixture(scope="module")
def thresholded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threshold")
    tree = ensemble(folder, [DEFAULT] * 3)
    plain, path, _ = built(folder, tree, SkipGatedMembers(THRESHOLD))
    return session(plain), session(path)


@pytest.mark.parametrize(
    ("kind", "space", "threshold", "text"),
    [
        ("log_linear", "logits", 0.1, "for which no bound holds with a threshold of 0.1, wanted 0"),
        ("linear", "values", 0.1, "GatedWeightedMean, for which no bound holds"),
        ("linear", "logits", 0.5, "all 2 members of 'interpolation' could be skipped"),
        ("linear", "logits", -0.1, "the threshold is -0.1, wanted 0 to below 1"),
    ],
)
def test_a_threshold_without_a_bound_is_refused(kind, space, threshold, text, tmp_path):
    tree = ensemble(tmp_path, [DEFAULT] * 2, kind, space)
    with pytest.raises(GraphError, match=text):
        built(tmp_path, tree, SkipGatedMembers(threshold))


def test_a_graph_without_a_gate_is_refused(tmp_path):
    path = net(tmp_path / "m.onnx", 0)
    with pytest.raises(GraphError, match="the graph holds no gated ensemble"):
        rewrite(path, [SkipGatedMembers()], tmp_path / "out.onnx")


def test_members_that_cannot_be_skipped_are_near_misses_with_reasons(tmp_path):
    open_shapes = tuple(
        Leaf(
            name,
            write(
                tmp_path / f"open_{name}.onnx",
                """<ir_version: 10, opset_import: ["" : 20]>
                net (float[batch, 4] x) => (float[n, 3] logits) { logits = MatMul (x, weight) }""",
                weight=np.full((4, 3), value, np.float32),
            ),
        )
        for name, value in (("a", 1), ("b", 2))
    )
    bare = write(
        tmp_path / "bare.onnx",
        """<ir_version: 10, opset_import: ["" : 20]>
        net (float[batch, 4] x) => (float[batch, 3] logits) { logits = MatMul (x, weight) }""",
        weight=np.ones((4, 3), np.float32),
    )
    scores = identity(tmp_path / "gate.onnx", output="scores", dims="[batch, 2]")
    gate = Gate(Leaf("gate", scores, {"z": "s"}), "scores", 1)
    how = Combination("linear", "logits", (), "logits")
    # Equal members: fusing leaves one node that serves both.
    tree = Ensemble("root", (Leaf("a", bare), Leaf("b", bare)), how, gate=gate)
    fuse(tree, tmp_path / "model.onnx", passes=[DeduplicateSubgraphs()])
    with pytest.raises(GraphError, match="asked for and rewrote nothing") as found:
        rewrite(
            tmp_path / "model.onnx", [SkipGatedMembers()], tmp_path / "out.onnx",
            required=["skip_gated_members"],
        )  # fmt: skip
    assert "a/logits: it has no nodes of its own" in found.value.hint
    one_for_all = identity(tmp_path / "g.onnx", output="scores", dims="[1, 2]")
    gate = Gate(Leaf("gate", one_for_all, {"z": "s"}), "scores", 1)
    fuse(
        Ensemble("root", open_shapes, how, gate=gate),
        tmp_path / "model.onnx",
    )
    (report,) = rewrite(tmp_path / "model.onnx", [SkipGatedMembers()], tmp_path / "out.onnx")
    reasons = {miss.reason for miss in report.near_misses}
    assert reasons == {"its shape does not follow from the inputs' named dimensions"}


def test_equal_members_that_became_one_are_not_skipped_for_one_of_them(tmp_path):
    """Both read the one row: behind the first one's condition the second would get zeros."""
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    paths = [write(tmp_path / f"{name}.onnx", DEFAULT, weight=weight) for name in "ab"]
    leaves = tuple(Leaf(path.stem, path) for path in paths)
    scores = identity(tmp_path / "gate.onnx", output="scores", dims="[batch, 2]")
    gate = Gate(Leaf("gate", scores, {"z": "s"}), "scores", 1)
    tree = Ensemble("root", leaves, Combination("linear", "logits", (), "logits"), gate=gate)
    plain, path, report = built(tmp_path, tree, DeduplicateSubgraphs(), SkipGatedMembers())
    second = np.tile(np.float32([0, 1]), (5, 1))
    assert run(plain, x=X, s=second).tobytes() == run(path, x=X, s=second).tobytes()
    assert report.sites == ()
