"""deduplicate_initializers: equal by content, whatever the name, read no more than needed."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphs import DeduplicateInitializers, PassReport, describe, rewrite
from graphs.passes import deduplicate_initializers
from tests.graphs.models import run, write


def model(path, *, outputs=(), **weights: np.ndarray):
    """``y`` is the sum of all weights, cast to float32; ``outputs`` are weights as they are."""
    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in weights]
    nodes.append(helper.make_node("Sum", [f"{name}_f" for name in weights], ["y"]))
    infos = [
        helper.make_tensor_value_info(
            n, helper.np_dtype_to_tensor_dtype(weights[n].dtype), weights[n].shape
        )
        for n in outputs
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [],
        [helper.make_tensor_value_info("y", 1, None), *infos],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def deduplicated(folder, path) -> PassReport:
    (report,) = rewrite(path, [DeduplicateInitializers()], folder / "out.onnx")
    return report


def test_equal_initializers_become_the_first(tmp_path):
    ones = np.ones((2, 3), np.float32)
    path = model(tmp_path / "m.onnx", a=ones, b=2 * ones, c=ones, d=2 * ones)
    assert deduplicated(tmp_path, path).sites == ("c", "d")
    assert describe(tmp_path / "out.onnx").parameters == 12
    assert np.array_equal(run(tmp_path / "out.onnx"), 6 * ones)


def test_dtype_and_shape_must_agree(tmp_path):
    zeros = np.zeros((2, 2), np.float32)
    path = model(tmp_path / "m.onnx", a=zeros, b=zeros.view(np.int32), c=zeros[:1], d=zeros[:, :1])
    assert deduplicated(tmp_path, path).sites == ()


def test_zero_and_minus_zero_differ_and_equal_nan_do_not(tmp_path):
    values = {"a": 0.0, "b": -0.0, "c": np.nan, "d": np.nan}
    arrays = {name: np.full((1,), value, np.float32) for name, value in values.items()}
    assert deduplicated(tmp_path, model(tmp_path / "m.onnx", **arrays)).sites == ("d",)


def test_tensors_that_begin_alike_are_told_apart(tmp_path):
    a = np.zeros(40_000, np.float32)
    b = a.copy()
    b[-1] = 1
    source = model(tmp_path / "m.onnx", a=a, b=b, c=b)
    path = tmp_path / "external.onnx"
    rewrite(source, [], path)
    assert deduplicated(tmp_path, source).sites == ("c",)
    assert deduplicated(tmp_path, path).sites == ("c",)
    assert (tmp_path / "out.onnx.data").stat().st_size == 2 * a.nbytes


def test_a_tensor_without_a_counterpart_is_not_read(tmp_path, monkeypatch):
    path = model(tmp_path / "m.onnx", a=np.ones((2, 3), np.float32), b=np.ones((1, 3), np.float32))

    def read(*_):
        raise AssertionError("read")

    for name in ("chunks_of", "content_of"):
        monkeypatch.setattr(deduplicate_initializers, name, read)
    assert deduplicated(tmp_path, path).sites == ()


def test_an_output_keeps_its_name_and_is_reported(tmp_path):
    ones = np.ones(3, np.float32)
    path = model(tmp_path / "m.onnx", a=ones, b=ones, outputs=("b",))
    report = deduplicated(tmp_path, path)
    assert report.sites == ()
    (miss,) = report.near_misses
    assert (miss.node, miss.reason) == ("b", "equals a but is an output")


def test_an_input_with_a_default_value_is_no_constant(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[3] a) => (float[3] y) { y = Sub (a, b) }
    """
    ones = np.ones(3, np.float32)
    path = write(tmp_path / "m.onnx", text, a=ones, b=ones)
    assert deduplicated(tmp_path, path).sites == ()
    assert np.array_equal(run(tmp_path / "out.onnx", a=3 * ones), 2 * ones)


def test_strings_are_compared_by_content(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net () => (string[2] y, string[2] z) { y = Identity (a)  z = Identity (b) }
    """
    proto = onnx.load(write(tmp_path / "m.onnx", text))
    for name in "ab":
        proto.graph.initializer.append(helper.make_tensor(name, 8, [2], [b"left", b"right"]))
    onnx.save(proto, tmp_path / "m.onnx")
    assert deduplicated(tmp_path, tmp_path / "m.onnx").sites == ("b",)


def test_a_subgraph_sees_the_one_that_is_left(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[3] x, bool flag) => (float[3] y)
    {
      h = Add (x, a)
      y = If (flag) <
        then_branch = yes () => (float[3] p) { p = Mul (h, b) },
        else_branch = no () => (float[3] q) { q = Identity (h) }
      >
    }
    """
    twos = np.full(3, 2, np.float32)
    path = write(tmp_path / "m.onnx", text, a=twos, b=twos)
    assert deduplicated(tmp_path, path).sites == ("b",)
    assert np.array_equal(
        run(tmp_path / "out.onnx", x=twos, flag=np.array(True)), np.full(3, 8, np.float32)
    )


@given(choices=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_as_many_are_left_as_there_are_contents(choices, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    arrays = {f"t{i}": np.full(300, value, np.int64) for i, value in enumerate(choices)}
    report = deduplicated(folder, model(folder / "m.onnx", **arrays))
    assert len(report.sites) == len(choices) - len(set(choices))
    assert np.array_equal(run(folder / "out.onnx"), np.full(300, sum(choices), np.float32))
