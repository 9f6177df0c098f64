"""What parity --explain and --save-case print."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


@pytest.fixture
def broken(shop, run):
    """A bundle whose graph has one weight row off by 0.03 %."""
    assert run("export", "recipe.yaml", "-o", "bundle", "--allow-code").code == 0
    model = onnx.load(shop / "bundle/model.onnx")
    tensor = next(w for w in model.graph.initializer if w.name.endswith("inner.0.weight"))
    array = numpy_helper.to_array(tensor).copy()
    array[2] *= np.float32(1.0003)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, shop / "bundle/model.onnx")
    return shop / "bundle"


def test_the_node_its_module_and_what_differs_are_printed(broken, run):
    done = run("parity", "bundle", "--as-is", "--allow-code", "--explain")
    assert done.code == 3
    shown = " ".join(done.out.replace("│", " ").split())
    assert "The first node that leaves its budget is deep/module.module.inner.0/Gemm" in shown
    assert "PyTorch module inner.0" in shown
    assert "source aten.linear.default: return self.inner(x)" in shown
    assert "in 8 of 8 samples" in shown
    assert "values of 38 nodes held against float64 in 8 samples" in shown


def test_the_explanation_is_part_of_the_json(broken, run):
    done = run("parity", "bundle", "--as-is", "--allow-code", "--explain", "--json")
    found = json.loads(done.out)["explanation"]
    (suspect,) = found["suspects"]
    assert (suspect["member"], suspect["module"], suspect["samples"]) == ("deep", "inner.0", 8)
    assert suspect["ratio"] > found["limit"]
    assert [finding["subject"] for finding in found["findings"]] == [
        "deep/module.module.inner.0.weight"
    ]


def test_without_as_is_changed_files_are_refused_first(broken, run):
    done = run("parity", "bundle", "--allow-code", "--explain")
    assert done.code == 5
    assert "model.onnx has changed" in done.err


def test_a_saved_case_is_beside_the_bundle_and_says_what_shows_it(broken, run):
    done = run("parity", "bundle", "--allow-code", "--save-case", "2", "--json")
    assert done.code == 3
    found = json.loads(done.out)
    assert (found["folder"], found["passed"]) == ("bundle.case", False)
    assert (broken.parent / "bundle.case" / "reproduce.py").is_file()
    again = run("parity", "bundle", "--allow-code", "--save-case", "2")
    assert again.code == 1
    assert again.err.splitlines()[-3:] == [
        "error: bundle.case exists", "", "hint: choose another folder with --case-out",
    ]  # fmt: skip
