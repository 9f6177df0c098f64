"""Mixed precision from the recipe: proven at the budget of half precision, and no worse than it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import graphs
from tests.workshop import RECIPE, write_huggingface, write_recipe
from toolkit.artifacts import DimRange
from toolkit.cli.main import main
from toolkit.errors import RecipeError
from toolkit.export import ExportOptions, export_source
from toolkit.pipeline import explain_bundle, export_recipe, make_plan, prove_bundle
from toolkit.pipeline.sensitivity import NodeGroup, suggest
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner, TorchRunner
from toolkit.sources import HuggingFaceSource


def recipe(shop, settings, text=RECIPE):
    path = write_recipe(shop, text + f"export: {{{settings}}}\n")
    return load_recipe(path, allow_code=True)


def test_a_mixed_graph_is_proven_and_explained(shop):
    out = shop.parent / "bundle"
    found = export_recipe(recipe(shop, "precision: mixed_float16"), shop, out)
    found.report.raise_if_failed()
    assert {c.level for v in found.report.verdicts for c in v.checks} >= {"G1", "G2"}
    assert found.report.candidates == (
        "onnxruntime cpu, widened to float32",
        "onnxruntime cpu, unoptimised, in float32",
        "onnxruntime cpu, in float32",
        "onnxruntime cpu, unoptimised",
        "onnxruntime cpu",
    )
    lowered = next(step for step in found.passes if step.name == "mixed_precision")
    assert any("inner" in site for site in lowered.sites)
    assert {a.dtype for a in graphs.Weights(out / "model.onnx").values()} >= {np.dtype("f2")}
    assert graphs.describe(out / "model.onnx").inputs[0].dtype == "float32"
    proof = prove_bundle(out, allow_code=True)
    assert proof.passed
    assert explain_bundle(out, proof, allow_code=True).findings == ()


def test_inputs_and_outputs_in_half_precision(shop):
    out = shop.parent / "bundle"
    found = export_recipe(recipe(shop, "precision: mixed_float16, io: half"), shop, out)
    found.report.raise_if_failed()
    assert [tensor.dtype for tensor in found.manifest.inputs] == ["float16"]
    assert [tensor.dtype for tensor in found.manifest.outputs] == ["float16"]


def test_an_onnx_member_has_no_healthy_error(shop):
    from tests.graphs.models import net

    net(shop / "net.onnx", 1)
    text = "model: {onnx: net.onnx}\nshapes: {batch: [1, 2, 4]}\n"
    with pytest.raises(RecipeError, match="'net' is an ONNX file"):
        make_plan(recipe(shop, "precision: mixed_float16", text), shop)


def test_mixed_is_no_worse_than_all_of_it_in_float16(tmp_path):
    source = HuggingFaceSource("bert", write_huggingface(tmp_path / "bert", "bert"))
    shapes = {"batch": DimRange(1, 2, 4), "sequence": DimRange(2, 8, 32)}
    for precision in ("float32", "float16"):
        options = ExportOptions(precision=precision)
        export_source(source, shapes, options, tmp_path / f"{precision}.onnx")
    graphs.rewrite(tmp_path / "float32.onnx", [graphs.MixedPrecision()], tmp_path / "mixed.onnx")
    rng = np.random.default_rng(0)
    feeds = {
        "input_ids": rng.integers(0, 97, (64, 12)),
        "attention_mask": np.ones((64, 12), np.int64),
        "token_type_ids": np.zeros((64, 12), np.int64),
    }
    errors = {}
    with TorchRunner(source, "float64") as run:
        wanted = run(feeds)["logits"]
    for name in ("float32", "float16", "mixed"):
        with OrtRunner(tmp_path / f"{name}.onnx") as run:
            errors[name] = np.sqrt(np.square(run(feeds)["logits"] - wanted).mean())
    assert errors["float32"] < errors["mixed"] / 10
    assert errors["mixed"] < errors["float16"]


def test_nothing_is_suggested_where_nothing_suffices():
    groups = [NodeGroup(name, (f"{name}/*",), 1, 0.5) for name in "abcd"]
    kept = []

    def error(step):
        kept.append(len(step.keep_float32))
        return 0.4, ()

    assert suggest(groups, 0.5, 0.1, error) == (None, None)
    assert max(kept) == 3  # with all four kept nothing would be lowered
    assert suggest(groups, 0.5, 0.4, error) == (("a/*",), 0.4)


def test_the_most_sensitive_part_is_named_and_kept(shop, capsys, monkeypatch):
    monkeypatch.chdir(shop)
    write_recipe(shop)
    export_recipe(load_recipe(shop / "recipe.yaml", allow_code=True), shop, shop / "out")

    def precision(*arguments):
        with pytest.raises(SystemExit) as done:
            main(["precision", "out", "--json", *arguments])
        return done.value.code, json.loads(capsys.readouterr().out)

    code, found = precision()
    errors = [group["error"] for group in found["groups"]]
    assert code == 0
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[0] <= 2 * found["lowered"]
    assert len({group["name"] for group in found["groups"]}) == len(errors) > 1
    code, loose = precision("--max-error", str(found["lowered"]))
    assert (code, loose["keep"]) == (0, [])
    code, tight = precision("--max-error", str(0.7 * found["lowered"]))
    assert code == 0
    assert tight["keep"][: len(found["groups"][0]["patterns"])] == found["groups"][0]["patterns"]
    assert tight["kept"] <= 0.7 * found["lowered"]
    # what is suggested is what a recipe takes
    keep = ", ".join(f'"{pattern}"' for pattern in tight["keep"])
    export_recipe(
        recipe(shop, f"precision: mixed_float16, keep_float32: [{keep}]"), shop, shop / "kept"
    ).report.raise_if_failed()
    with pytest.raises(SystemExit) as done:
        main(["precision", "kept"])
    assert done.value.code == 1
    assert "holds weights in half precision already" in capsys.readouterr().err
