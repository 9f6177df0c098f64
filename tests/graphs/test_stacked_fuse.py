"""fuse with stacks: outputs of one member are inputs of another, whatever nests in what."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs import Combination, Ensemble, Feed, GraphError, Leaf, Stack, fuse
from tests.graphs.models import (
    check_golden,
    linear,
    net,
    run,
    session,
    text_of,
    write,
)

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
W = {seed: np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32) for seed in range(4)}

JOIN = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[n, 3] left, float[n, 3] right) => (float[n, 3] logits, float[n, 3] sum)
{
  sum = Add (left, right)
  logits = Mul (sum, right)
}
"""


def join(folder, text=JOIN, **rename):
    return Leaf("join", write(folder / "join.onnx", text), rename)


def nets(folder, *names):
    return [Leaf(name, net(folder / f"{name}.onnx", seed)) for seed, name in enumerate(names)]


def relu(seed, x=X):
    return np.maximum(x @ W[seed], 0)


def test_a_stack_of_two_members_and_what_joins_them(tmp_path):
    feeds = {"a_says": Feed("a", "logits"), "right": Feed("b", "logits")}
    tree = Stack("root", (*nets(tmp_path, "a", "b"), join(tmp_path, left="a_says")), feeds)
    path = tmp_path / "model.onnx"
    fuse(tree, path)
    check_golden("fuse_stacked.txt", text_of(path))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x"]
    # the last stage calls the batch n; what feeds it calls it batch
    dims = [[d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim]
            for o in model.graph.output]  # fmt: skip
    assert dims == [["batch", 3], ["batch", 3]]
    logits, total = session(path).run(["logits", "sum"], {"x": X})
    np.testing.assert_array_equal(total, relu(0) + relu(1))
    np.testing.assert_array_equal(logits, (relu(0) + relu(1)) * relu(1))


def test_an_ensemble_feeds_a_stack_inside_an_ensemble(tmp_path):
    """The interpolation that feeds the last stage stands before it, and names start with paths."""
    a, b, c = nets(tmp_path, "a", "b", "c")
    half = Combination("linear", "logits", (0.5, 0.5), "logits")
    mixed = Ensemble("mix", (a, b), half, {"x": "y"})
    feeds = {"left": Feed("mix", "logits")}
    stack = Stack("stk", (mixed, join(tmp_path, right="left")), feeds, {"y": "x"})
    fuse(Ensemble("root", (stack, c), half), tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    inner = linear(np.stack([relu(0), relu(1)]), np.array([0.5, 0.5]))
    wanted = linear(np.stack([2 * inner * inner, relu(2)]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x=X), wanted, rtol=0, atol=1e-5)


def test_two_stacks_have_feeds_of_one_name_and_a_stack_is_a_stage(tmp_path):
    a, b = nets(tmp_path, "a", "b")
    same = {"right": Feed("a", "logits"), "left": Feed("a", "logits")}
    inner = Stack("inner", (a, join(tmp_path)), same)
    last = Leaf("last", join(tmp_path).path)
    outer = {"left": Feed("inner", "sum"), "right": Feed("b", "logits")}
    fuse(Stack("root", (inner, b, last), outer), tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", x=X)
    np.testing.assert_array_equal(found, (2 * relu(0) + relu(1)) * relu(1))


def test_an_output_that_passes_its_input_on_is_fed(tmp_path):
    (a,) = nets(tmp_path, "a")
    text = '<ir_version: 10, opset_import: ["" : 20]> net (float[m, 3] z) => (float[m, 3] z) {}'
    passes = Leaf("b", write(tmp_path / "b.onnx", text))
    feeds = {"z": Feed("a", "logits"), "left": Feed("b", "z"), "right": Feed("a", "logits")}
    fuse(Stack("root", (a, passes, join(tmp_path)), feeds), tmp_path / "model.onnx")
    np.testing.assert_array_equal(run(tmp_path / "model.onnx", x=X), 2 * relu(0) * relu(0))


WHERE = "feed 'left' is float32[batch, 3] where it is given, as a/logits, and {} where it is taken"
REFUSALS = {
    "no such stage": (
        {"left": Feed("c", "logits"), "right": Feed("a", "logits")}, JOIN,
        "feed 'left' of stack 'root' comes from 'c', wanted a stage before the last",
    ),
    "no such output": (
        {"left": Feed("a", "hidden"), "right": Feed("b", "logits")}, JOIN,
        "stage 'a' has no output 'hidden' for the feed 'left'",
    ),
    "nobody takes it": (
        {"up": Feed("a", "logits"), "right": Feed("b", "logits")}, JOIN,
        "no stage behind 'a' takes the feed 'up'",
    ),
    "a stage before takes it": (
        {"x": Feed("b", "logits"), "right": Feed("b", "logits")}, JOIN,
        "stage 'a' takes the feed 'x', which comes from stage 'b'",
    ),
    "shape": (
        {"left": Feed("a", "logits"), "right": Feed("b", "logits")},
        JOIN.replace("float[n, 3] left", "float[n, 1] left"),
        WHERE.format("float32[n, 1]"),
    ),
    "dtype": (
        {"left": Feed("a", "logits"), "right": Feed("b", "logits")},
        JOIN.replace("float[", "float16["),
        WHERE.format("float16[n, 3]"),
    ),
    "dimension of another input": (
        {"left": Feed("a", "logits")}, JOIN, WHERE.format("float32[n, 3]"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_by_name(case, tmp_path):
    feeds, text, message = REFUSALS[case]
    with pytest.raises(GraphError) as found:
        fuse(Stack("root", (*nets(tmp_path, "a", "b"), join(tmp_path, text)), feeds),
             tmp_path / "model.onnx")  # fmt: skip
    assert found.value.message == message
    assert not (tmp_path / "model.onnx").exists()


def test_one_stage_is_no_stack(tmp_path):
    with pytest.raises(GraphError, match="stack 'root' has 1 stages, wanted two or more"):
        Stack("root", tuple(nets(tmp_path, "a")), {})
