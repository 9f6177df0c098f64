"""fuse: one graph that computes what its members and their combination compute."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from graphs import Combination, Ensemble, GraphError, Leaf, StripExporterMetadata, describe, fuse
from tests.graphs.models import (
    check_golden,
    identities,
    identity,
    linear,
    log_linear,
    net,
    run,
    text_of,
    write,
)

LINEAR = Combination("linear", "logits", (0.25, 0.75), "logits")
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
# One member is a dozen roundings away from its float64 formula, the mixture a dozen more.
ATOL = 2e-6


def two(folder, combination=LINEAR, name="root", **rename) -> Ensemble:
    leaves = (
        Leaf("a", net(folder / "a.onnx", 1)),
        Leaf("b", net(folder / "b.onnx", 2), rename),
    )
    return Ensemble(name, leaves, combination)


def member(seed: int, x: np.ndarray = X) -> np.ndarray:
    weight = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    return np.maximum(x.astype(np.float64) @ weight, 0)


def fused(tree, folder):
    fuse(tree, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("kind", ["linear", "log_linear"])
def test_logits_give_log_probabilities(kind, tmp_path):
    tree = two(tmp_path, dataclasses.replace(LINEAR, kind=kind))
    formula = {"linear": linear, "log_linear": log_linear}[kind]
    wanted = formula(np.stack([member(1), member(2)]), np.array(LINEAR.weights))
    found = run(fused(tree, tmp_path), x=X)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ATOL)


def test_probabilities_give_probabilities(tmp_path):
    combination = Combination("linear", "probabilities", (0.25, 0.75), "logits")
    tree = Ensemble("root", identities(tmp_path, 2), combination)
    p = np.array([[0.5, 0.5, 0.0]], np.float32)
    q = np.array([[0.25, 0.0, 0.75]], np.float32)
    found = run(fused(tree, tmp_path), z0=p, z1=q)
    np.testing.assert_allclose(found, 0.25 * p + 0.75 * q, rtol=3e-7)


def test_a_zero_probability_vetoes_log_linearly(tmp_path):
    combination = Combination("log_linear", "probabilities", (0.5, 0.5), "logits")
    tree = Ensemble("root", identities(tmp_path, 2), combination)
    p = np.array([[0.5, 0.5, 0.0]], np.float32)
    q = np.array([[0.25, 0.0, 0.75]], np.float32)
    path = fused(tree, tmp_path)
    np.testing.assert_allclose(run(path, z0=p, z1=q), [[1, 0, 0]], rtol=1e-7)
    vetoed = run(path, z0=np.array([[1, 0, 0]], np.float32), z1=np.array([[0, 1, 0]], np.float32))
    assert np.array_equal(vetoed, [[0, 0, 0]])


def test_values_give_the_weighted_mean(tmp_path):
    tree = two(tmp_path, Combination("linear", "values", (0.25, 0.75), "logits"))
    wanted = 0.25 * member(1) + 0.75 * member(2)
    np.testing.assert_allclose(run(fused(tree, tmp_path), x=X), wanted, rtol=0, atol=ATOL)


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("double", np.float64)])
def test_the_output_has_the_members_dtype(dtype, kind, tmp_path):
    tree = Ensemble("root", identities(tmp_path, 2, dtype=dtype), LINEAR)
    z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(kind)
    found = run(fused(tree, tmp_path), z0=z[0], z1=z[1])
    assert found.dtype == kind
    # float16 is one rounding of the output; float64 is accumulated in float64, a dozen roundings
    # of numbers up to 3.
    atol = {np.float16: 1e-3, np.float64: 4e-15}[kind]
    np.testing.assert_allclose(found, linear(z, np.array([0.25, 0.75])), rtol=0, atol=atol)


def test_ensembles_nest(tmp_path):
    inner = two(tmp_path, Combination("log_linear", "logits", (0.5, 0.7), "logits"), "inner")
    tree = Ensemble("root", (inner, Leaf("c", net(tmp_path / "c.onnx", 3))), LINEAR)
    below = log_linear(np.stack([member(1), member(2)]), np.array([0.5, 0.7]))
    wanted = linear(np.stack([below, member(3)]), np.array([0.25, 0.75]))
    path = fused(tree, tmp_path)
    np.testing.assert_allclose(run(path, x=X), wanted, rtol=0, atol=ATOL)
    check_golden("fuse_nested.txt", text_of(path))


def test_one_leaf_keeps_its_names_and_takes_new_ones_for_its_inputs(tmp_path):
    leaf = Leaf("only", net(tmp_path / "a.onnx", 1), {"x": "features"})
    path = fused(leaf, tmp_path)
    assert [i.name for i in describe(path).inputs] == ["features"]
    assert [o.name for o in describe(path).outputs] == ["logits"]
    np.testing.assert_allclose(run(path, features=X), member(1), rtol=0, atol=ATOL)


def test_an_input_that_only_one_member_needs_stays_an_input(tmp_path):
    path = fused(two(tmp_path, x="y"), tmp_path)
    assert [str(i) for i in describe(path).inputs] == [
        "x: float32[batch, 4]",
        "y: float32[batch, 4]",
    ]
    y = X[::-1].copy()
    wanted = linear(np.stack([member(1), member(2, y)]), np.array(LINEAR.weights))
    np.testing.assert_allclose(run(path, x=X, y=y), wanted, rtol=0, atol=ATOL)


def test_inputs_are_renamed_at_every_level(tmp_path):
    inner = dataclasses.replace(two(tmp_path, name="inner", x="y"), rename={"y": "w", "x": "v"})
    tree = Ensemble("root", (inner,), Combination("linear", "logits", (1.0,), "logits"), {"w": "u"})
    assert [i.name for i in describe(fused(tree, tmp_path)).inputs] == ["v", "u"]


def test_renaming_may_swap_two_inputs(tmp_path):
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "net (float[3] p, float[3] q) => (float[3] logits) { logits = Sub (p, q) }"
    )
    leaf = Leaf("only", write(tmp_path / "sub.onnx", text), {"p": "q", "q": "p"})
    p, q = np.array([5, 5, 5], np.float32), np.array([1, 2, 3], np.float32)
    assert np.array_equal(run(fused(leaf, tmp_path), p=p, q=q), q - p)


def test_a_dimension_named_differently_is_the_same_dimension(tmp_path):
    tree = Ensemble(
        "root",
        (
            Leaf("a", identity(tmp_path / "a.onnx", dims="[batch, 3]")),
            Leaf("b", identity(tmp_path / "b.onnx", dims="[N, 3]")),
        ),
        LINEAR,
    )
    assert [str(o) for o in describe(fused(tree, tmp_path)).outputs] == [
        "logits: float32[batch, 3]"
    ]


def test_the_same_files_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    tree = two(tmp_path)
    written = [(fuse(tree, d / "m.onnx", {"b": "2", "a": "1"}), d) for d in (first, second)]
    assert len(written) == 2
    assert (first / "m.onnx").read_bytes() == (second / "m.onnx").read_bytes()
    assert dict(describe(first / "m.onnx").metadata) == {"a": "1", "b": "2"}


def test_equal_initializers_are_stored_once(tmp_path):
    path = net(tmp_path / "a.onnx", 1)
    tree = Ensemble("root", (Leaf("a", path), Leaf("b", path)), LINEAR)
    reports = fuse(tree, tmp_path / "model.onnx")
    assert reports[0].name == "deduplicate_initializers"
    assert reports[0].sites == ("b/weight",)
    # weight [4, 3], the interpolation's axis and two weights
    assert describe(tmp_path / "model.onnx").parameters == 12 + 1 + 2


def test_what_the_combined_output_does_not_need_is_removed(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 3] x) => (float[b, 3] logits, float[b, 3] extra)
    { logits = Identity (x)  extra = Mul (x, big) }
    """
    path = write(tmp_path / "two.onnx", text, big=np.ones((1, 3), np.float32))
    tree = Ensemble("root", (Leaf("a", path), Leaf("b", path)), LINEAR)
    assert "Mul" not in describe(fused(tree, tmp_path)).operators


BRANCHED = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[b, 3] x, bool flag) => (float[b, 3] logits)
{
  doubled = Add (x, x)
  logits = If (flag) <
    then_branch = yes () => (float[b, 3] out)
      { shift = Constant <value_float = 1.0> () out = Add (doubled, shift) },
    else_branch = no () => (float[b, 3] kept) { kept = Mul (doubled, weight) }
  >
}
"""


def test_subgraphs_are_prefixed_and_keep_what_they_capture(tmp_path):
    a = write(tmp_path / "a.onnx", BRANCHED, weight=np.full(3, 3, np.float32))
    b = write(tmp_path / "b.onnx", BRANCHED, weight=np.full(3, 5, np.float32))
    tree = Ensemble(
        "root",
        (Leaf("a", a), Leaf("b", b, {"flag": "other"})),
        Combination("linear", "values", (0.5, 0.5), "logits"),
    )
    path = fused(tree, tmp_path)
    x = np.array([[1, 2, 3]], np.float32)
    for flag in (True, False):
        found = run(path, x=x, flag=np.array(flag), other=np.array(not flag))
        wanted = 0.5 * (2 * x + 1) + 0.5 * (2 * x * (5 if flag else 3))
        assert np.array_equal(found, wanted)
    check_golden("fuse_branched.txt", text_of(path))


def test_names_of_nodes_are_made_unique(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 3] x) => (float[b, 3] logits) { h = Relu (x)  logits = Relu (h) }
    """
    path = fused(Leaf("only", write(tmp_path / "a.onnx", text)), tmp_path)
    assert [node.name for node in onnx.load(path).graph.node] == ["Relu", "Relu#1"]


def test_an_optional_output_left_out_stays_left_out(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 3] x) => (float[b, 3] logits)
    { normal, , scale = LayerNormalization (x, ones)  logits = Mul (normal, scale) }
    """
    path = write(tmp_path / "a.onnx", text, ones=np.ones(3, np.float32))
    tree = Ensemble("root", (Leaf("a", path),), Combination("linear", "logits", (1.0,), "logits"))
    node = next(n for n in onnx.load(fused(tree, tmp_path)).graph.node if n.op_type[0] == "L")
    assert list(node.output) == ["a/normal", "", "a/scale"]


def test_passes_are_applied_before_writing(tmp_path):
    reports = fuse(two(tmp_path), tmp_path / "model.onnx", passes=[StripExporterMetadata()])
    assert [report.name for report in reports] == [
        "deduplicate_initializers",
        "deduplicate_subgraphs",
        "remove_unused_nodes",
        "strip_exporter_metadata",
    ]


def test_a_default_value_of_an_input_becomes_a_constant(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 3] x, float[3] scale) => (float[b, 3] logits) { logits = Mul (x, scale) }
    """
    path = write(tmp_path / "a.onnx", text, scale=np.array([1, 2, 3], np.float32))
    assert [i.name for i in describe(fused(Leaf("only", path), tmp_path)).inputs] == ["x"]


def refusal(tree, folder) -> GraphError:
    before = sorted(folder.iterdir())
    with pytest.raises(GraphError) as caught:
        fuse(tree, folder / "model.onnx")
    assert sorted(folder.iterdir()) == before, "something was left behind"
    return caught.value


def test_members_must_have_the_combined_output(tmp_path):
    other = identity(tmp_path / "b.onnx", output="scores")
    tree = Ensemble("root", (*identities(tmp_path, 1), Leaf("b", other)), LINEAR)
    error = refusal(tree, tmp_path)
    assert error.message == "member 'b' has no output 'logits' to combine"
    assert error.hint == "its outputs are scores"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"dims": "[b, 4]"}, "float32[b, 4]"),
        ({"dims": "[n, 3]"}, "float32[n, 3]"),
        ({"dims": "[b, 1, 3]"}, "float32[b, 1, 3]"),
        ({"dtype": "float16"}, "float16[b, 3]"),
    ],
)
def test_members_must_agree_about_the_combined_output(options, found, tmp_path):
    other = identity(tmp_path / "b.onnx", **options)
    inner = Ensemble(
        "in", (*identities(tmp_path, 1), Leaf("b", other)), dataclasses.replace(LINEAR)
    )
    tree = Ensemble("root", (inner,), Combination("linear", "logits", (1.0,), "logits"))
    error = refusal(tree, tmp_path)
    assert error.message == (
        f"members disagree about output 'logits': 'in/m0' has float32[b, 3], 'in/b' has {found}"
    )
    assert error.hint == "dtype and shape must agree, symbolic dimensions by name"


def test_integers_are_not_interpolated(tmp_path):
    tree = Ensemble("root", identities(tmp_path, 2, dtype="int64"), LINEAR)
    assert refusal(tree, tmp_path).message == (
        "output 'logits' cannot be interpolated: 'm0' has int64[b, 3], 'm1' has int64[b, 3], "
        "wanted floats"
    )


def test_a_scalar_is_no_distribution(tmp_path):
    tree = Ensemble("root", identities(tmp_path, 2, dims=""), LINEAR)
    assert refusal(tree, tmp_path).message == (
        "output 'logits' is a scalar, and a distribution needs a last axis"
    )


@pytest.mark.parametrize("dims", ["[b, 5]", "[b]", "[1, 3]"])
def test_inputs_of_one_name_must_agree(dims, tmp_path):
    leaves = (
        Leaf("a", identity(tmp_path / "a.onnx")),
        Leaf("b", identity(tmp_path / "b.onnx", dims=dims)),
    )
    error = refusal(Ensemble("root", leaves, LINEAR), tmp_path)
    assert error.message == (
        f"input 'z' is float32[b, 3] in member 'a' and float32{dims} in member 'b'"
    )
    assert error.hint == "rename one of them if they are different inputs"


def test_a_member_that_ties_two_dimensions_cannot_join_one_that_does_not(tmp_path):
    leaves = (
        Leaf("a", identity(tmp_path / "a.onnx", dims="[b, c]")),
        Leaf("b", identity(tmp_path / "b.onnx", dims="[n, n]")),
    )
    error = refusal(Ensemble("root", leaves, LINEAR), tmp_path)
    assert "float32[b, c] in member 'a' and float32[n, n] in member 'b'" in error.message


def test_only_inputs_are_renamed(tmp_path):
    error = refusal(two(tmp_path, hidden="y"), tmp_path)
    assert error.message == "member 'b' has no input 'hidden' to rename"
    assert error.hint == "its inputs are x"


def test_an_input_may_not_take_the_name_of_the_output(tmp_path):
    error = refusal(two(tmp_path, x="logits"), tmp_path)
    assert error.message == "'logits' is both an input and an output"


def test_a_folder_that_does_not_exist_is_said_so(tmp_path):
    with pytest.raises(GraphError, match="No such file or directory"):
        fuse(two(tmp_path), tmp_path / "none" / "model.onnx")
