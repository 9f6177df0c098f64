"""Half precision: structure in float32, a budget at the target, and what the budget cannot see."""

from __future__ import annotations

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
    assert [name.endswith(", in float32") for name in report.candidates] == [
        True,
        True,
        False,
        False,
    ]
    assert report.notes[0].startswith("detection floor of float16: its budget does not see")

    graph = onnx.load(tmp_path / "bundle" / "model.onnx")
    halves = [t for t in graph.graph.initializer if len(t.dims) == 2]
    assert halves
    for tensor in halves:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((values * 1.1).astype(values.dtype), tensor.name))
    onnx.save(graph, tmp_path / "model.onnx")
    broken = prove_plan(make_plan(recipe, shop), tmp_path / "model.onnx")
    assert not broken.passed
    levels = {c.level for v in broken.verdicts for c in v.failures}
    assert "G2" in levels
    assert "G1" not in levels


def test_bfloat16_is_not_run_on_the_cpu_and_says_so(tmp_path):
    report = exported(tmp_path, "bfloat16")[2].report
    assert report.passed
    (check,) = (c for v in report.verdicts for c in v.checks if c.level == "G2")
    assert check.status == "not run"
    assert "no bfloat16 kernels for the CPU" in check.detail
    assert report.notes[0].startswith("detection floor of bfloat16")
