"""Half precision: structure in float32, a budget at the target, and what the budget cannot see."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.workshop import RECIPE, write_recipe, write_workshop
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.recipe import load_recipe


def exported(folder, precision):
    shop = write_workshop(folder / "shop")
    text = RECIPE + f"export: {{precision: {precision}}}\n"
    recipe = load_recipe(write_recipe(shop, text), allow_code=True)
    return shop, recipe, export_recipe(recipe, shop, folder / "bundle")


def test_float16_proves_both_graphs_and_prints_its_detection_floor(tmp_path):
    shop, recipe, outcome = exported(tmp_path, "float16")
    report = outcome.report
    report.raise_if_failed()
    assert {c.level for v in report.verdicts for c in v.checks} == {"G0", "G1", "G2", "G3", "G4"}
    assert report.candidates == (
        "onnxruntime cpu, widened to float32",
        "onnxruntime cpu, unoptimised, in float32",
        "onnxruntime cpu, in float32",
        "onnxruntime cpu, unoptimised",
        "onnxruntime cpu",
    )
    assert report.notes[-1].startswith("detection floor of float16: a weight matrix scaled by")

    graph = onnx.load(tmp_path / "bundle" / "model.onnx")
    halves = [t for t in graph.graph.initializer if len(t.dims) == 2]
    assert halves
    for tensor in halves:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((values * 1.1).astype(values.dtype), tensor.name))
    onnx.save(graph, tmp_path / "model.onnx")
    broken = prove_plan(make_plan(recipe, shop), tmp_path / "model.onnx")
    assert not broken.passed
    failed = {(v.candidate, c.level) for v in broken.verdicts for c in v.failures}
    assert ("onnxruntime cpu", "G2") in failed
    assert ("onnxruntime cpu, widened to float32", "G1") in failed
    assert ("onnxruntime cpu, in float32", "G1") not in failed  # the fresh export is right


def scaled(graph, factor):
    """Scale the first weight matrix of an ONNX file in half precision."""
    tensor = next(t for t in graph.graph.initializer if len(t.dims) == 2)
    values = numpy_helper.to_array(tensor).astype(np.float32) * np.float32(factor)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))


def test_a_defect_that_rounding_hides_is_seen_in_the_widened_file(tmp_path):
    shop, recipe, _ = exported(tmp_path, "float16")
    graph = onnx.load(tmp_path / "bundle" / "model.onnx")
    scaled(graph, 1.002)
    onnx.save(graph, tmp_path / "model.onnx")
    report = prove_plan(make_plan(recipe, shop), tmp_path / "model.onnx")
    assert {v.candidate for v in report.verdicts if not v.passed} == {
        "onnxruntime cpu, widened to float32"
    }


def test_bfloat16_is_not_run_on_the_cpu_and_says_so_but_its_file_is_proven(tmp_path):
    shop, recipe, outcome = exported(tmp_path, "bfloat16")
    report = outcome.report
    assert report.passed
    (check,) = (c for v in report.verdicts for c in v.checks if c.level == "G2")
    assert check.status == "not run"
    assert "no bfloat16 kernels for the CPU" in check.detail
    assert any(note.startswith("detection floor of bfloat16") for note in report.notes)
    graph = onnx.load(tmp_path / "bundle" / "model.onnx")
    scaled(graph, 1.05)
    onnx.save(graph, tmp_path / "model.onnx")
    assert not prove_plan(make_plan(recipe, shop), tmp_path / "model.onnx").passed
