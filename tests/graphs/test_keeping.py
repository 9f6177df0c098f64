"""Outputs that members keep for themselves stay outputs of the fused graph, under given names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from graphs import Combination, DeduplicateSubgraphs, Ensemble, GraphError, Group, Leaf, fuse
from tests.graphs.models import session, write

STATEFUL = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3] z, float[batch, n] past) => (float[batch, 3] logits, float[batch, m] present,
  float[batch, n] same, float[batch, 3] spare)
{
  logits = Neg (z)
  spare = Abs (z)
  present = Concat <axis = 1> (past, z)
  same = Identity (past)
}
"""
HALF = Combination("linear", "values", (0.5, 0.5), "logits")


def member(tmp_path, name, path, **keep):
    file = write(tmp_path / "stateful.onnx", STATEFUL)
    keep = {own: f"{own}.{path}" for own in ("present", "same")} | keep
    return Leaf(name, file, {"past": f"past.{path}"}, keep)


def tree(tmp_path):
    inner = Ensemble("in", (member(tmp_path, "b", "in.b"), member(tmp_path, "c", "in.c")), HALF)
    return Ensemble("root", (member(tmp_path, "a", "a"), inner), HALF)


def test_what_a_member_keeps_is_an_output_after_the_combined_one(tmp_path):
    fuse(tree(tmp_path), tmp_path / "m.onnx", passes=(DeduplicateSubgraphs(),))
    run = session(tmp_path / "m.onnx")
    names = [o.name for o in run.get_outputs()]
    paths = ("a", "in.b", "in.c")
    assert names == ["logits", *(f"{own}.{p}" for p in paths for own in ("present", "same"))]
    z = np.ones((2, 3), np.float32)
    pasts = {f"past.{p}": np.full((2, i + 1), i, np.float32) for i, p in enumerate(paths)}
    found = dict(zip(names, run.run(None, {"z": z, **pasts}), strict=True))
    np.testing.assert_array_equal(found["logits"], -z)
    for p in paths:
        np.testing.assert_array_equal(found[f"present.{p}"], np.hstack([pasts[f"past.{p}"], z]))
        np.testing.assert_array_equal(found[f"same.{p}"], pasts[f"past.{p}"])
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


def test_a_group_gives_what_its_members_keep_and_nothing_else(tmp_path):
    inner = Group("in", (member(tmp_path, "b", "in.b"),), {"z": "y"})
    fuse(Group("root", (member(tmp_path, "a", "a"), inner)), tmp_path / "m.onnx")
    run = session(tmp_path / "m.onnx")
    names = ["present.a", "same.a", "present.in.b", "same.in.b"]
    assert [o.name for o in run.get_outputs()] == names
    z, y = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    past = np.zeros((2, 1), np.float32)
    found = run.run(None, {"z": z, "y": y, "past.a": past, "past.in.b": past})
    np.testing.assert_array_equal(found[0], np.hstack([past, z]))
    np.testing.assert_array_equal(found[2], np.hstack([past, y]))
    assert "Neg" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def test_a_group_of_which_nothing_is_kept_is_refused(tmp_path):
    file = write(tmp_path / "stateful.onnx", STATEFUL)
    with pytest.raises(GraphError) as caught:
        fuse(Group("root", (Leaf("a", file),)), tmp_path / "m.onnx")
    assert caught.value.message == "'root' has no outputs: nothing of a group is combined"
    for members, message in (((), "has no members"), ((Leaf("a", file),) * 2, "2 members named")):
        with pytest.raises(GraphError, match=message):
            Group("root", members)


def test_members_that_compute_the_same_still_have_both_outputs(tmp_path):
    """Common subexpressions are one node, and a node's value has one name."""
    first, second = (
        replace(member(tmp_path, n, n, spare=f"spare.{n}"), rename={"past": "past"}) for n in "ab"
    )
    reports = fuse(Ensemble("root", (first, second), HALF), tmp_path / "m.onnx")
    assert any(r.sites for r in reports if r.name == DeduplicateSubgraphs.name)
    run = session(tmp_path / "m.onnx")
    feeds = {"z": np.ones((1, 3), np.float32), "past": np.zeros((1, 2), np.float32)}
    found = dict(zip([o.name for o in run.get_outputs()], run.run(None, feeds), strict=True))
    for own in ("present", "same", "spare"):
        np.testing.assert_array_equal(found[f"{own}.a"], found[f"{own}.b"])


def test_an_input_that_a_member_hands_through_is_copied(tmp_path):
    text = STATEFUL.replace("float[batch, n] same", "float[batch, n] past")
    file = write(tmp_path / "through.onnx", text.replace("  same = Identity (past)\n", ""))
    leaves = [Leaf(name, file, {"past": f"past.{name}"}, {"past": f"same.{name}"}) for name in "ab"]
    fuse(Ensemble("root", tuple(leaves), HALF), tmp_path / "m.onnx")
    run = session(tmp_path / "m.onnx")
    assert [i.name for i in run.get_inputs()] == ["z", "past.a", "past.b"]
    pasts = {f"past.{name}": np.full((1, 2), i, np.float32) for i, name in enumerate("ab")}
    found = run.run(["same.a", "same.b"], {"z": np.ones((1, 3), np.float32), **pasts})
    np.testing.assert_array_equal(found, list(pasts.values()))


def test_an_output_that_is_not_there_is_named(tmp_path):
    lost = member(tmp_path, "a", "a", state="state.a")
    with pytest.raises(GraphError) as caught:
        fuse(Ensemble("root", (lost, member(tmp_path, "b", "b")), HALF), tmp_path / "m.onnx")
    assert caught.value.message == "member 'a' has no output 'state' to keep"
    assert caught.value.hint == "its outputs are logits, present, same, spare"


@pytest.mark.parametrize("name", ["present.a", "logits"])
def test_two_outputs_of_one_name_are_refused(tmp_path, name):
    other = member(tmp_path, "b", "b", present=name)
    with pytest.raises(GraphError) as caught:
        fuse(Ensemble("root", (member(tmp_path, "a", "a"), other), HALF), tmp_path / "m.onnx")
    assert caught.value.message == (
        f"output 'present' of member 'b' is to be called {name!r}, which something else is called"
    )


def test_an_output_that_is_called_like_an_input_is_refused(tmp_path):
    other = member(tmp_path, "b", "b", present="past.a")
    with pytest.raises(GraphError, match=r"'past\.a' is both an input and an output"):
        fuse(Ensemble("root", (member(tmp_path, "a", "a"), other), HALF), tmp_path / "m.onnx")
