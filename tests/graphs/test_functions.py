"""Model-local functions of the members end up in one table, under names that differ."""

from __future__ import annotations

import numpy as np
import onnx

from graphs import Combination, Ensemble, Leaf, describe, fuse
from tests.graphs.models import run, text_of, write

VALUES = Combination("linear", "values", (0.5, 0.5), "logits")


def member(path, factor: float, domain: str = "local"):
    """``logits = Twice(x)``, where Twice calls Once, which multiplies by a factor."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 20, "{domain}" : 1]>
    net (float[b, 3] x) => (float[b, 3] logits) {{ logits = {domain}.Twice (x) }}
    <domain: "{domain}", opset_import: ["" : 20]>
    Once (x) => (y) {{ factor = Constant <value_float = {factor}> ()  y = Mul (x, factor) }}
    <domain: "{domain}", opset_import: ["" : 20, "{domain}" : 1]>
    Twice (x) => (y) {{ h = {domain}.Once (x)  y = {domain}.Once (h) }}
    """
    return write(path, text)


def fused(folder, *paths):
    leaves = tuple(Leaf(name, path) for name, path in zip("ab", paths, strict=True))
    fuse(Ensemble("root", leaves, VALUES), folder / "model.onnx")
    return folder / "model.onnx"


X = np.array([[1, 2, 3]], np.float32)


def test_equal_functions_are_stored_once(tmp_path):
    path = fused(tmp_path, member(tmp_path / "a.onnx", 2.0), member(tmp_path / "b.onnx", 2.0))
    assert describe(path).functions == ("local::Once", "local::Twice", "toolkit::WeightedMean")
    assert np.array_equal(run(path, x=X), 4 * X)


def test_a_function_with_another_body_is_named_after_its_member_with_what_calls_it(tmp_path):
    path = fused(tmp_path, member(tmp_path / "a.onnx", 2.0), member(tmp_path / "b.onnx", 4.0))
    assert describe(path).functions == (
        "local::Once",
        "local::Twice",
        "local::b__Once",
        "local::b__Twice",
        "toolkit::WeightedMean",
    )
    assert np.array_equal(run(path, x=X), 0.5 * (4 * X + 16 * X))
    assert "h = local.b__Once (x)" in text_of(path)


def test_the_order_of_functions_in_the_file_does_not_matter(tmp_path):
    paths = member(tmp_path / "a.onnx", 2.0), member(tmp_path / "b.onnx", 4.0)
    for path in paths:
        proto = onnx.load(path)
        functions = list(proto.functions)[::-1]
        del proto.functions[:]
        proto.functions.extend(functions)
        onnx.save(proto, path)
    assert np.array_equal(run(fused(tmp_path, *paths), x=X), 0.5 * (4 * X + 16 * X))


def test_names_differ_across_domains_because_tensorrt_ignores_them(tmp_path):
    paths = member(tmp_path / "a.onnx", 2.0), member(tmp_path / "b.onnx", 2.0, "other")
    path = fused(tmp_path, *paths)
    names = [function.name for function in onnx.load(path).functions]
    assert len(set(names)) == len(names) == 5
    assert np.array_equal(run(path, x=X), 4 * X)


def test_a_fused_graph_can_be_a_member_again(tmp_path):
    inner = fused(tmp_path, member(tmp_path / "a.onnx", 2.0), member(tmp_path / "b.onnx", 4.0))
    again = tmp_path / "again"
    again.mkdir()
    path = fused(again, inner, tmp_path / "a.onnx")
    assert [name for name in describe(path).functions if name.startswith("toolkit")] == [
        "toolkit::WeightedMean"
    ]
    assert np.array_equal(run(path, x=X), 0.5 * (10 * X + 4 * X))
