"""Experts in a proof: near ties excused and counted, wrong routers found, extremes run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.moe_models import tiny, write_tiny
from tests.workshop import write_recipe
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.prove import prove_plan
from toolkit.recipe import load_recipe

RECIPE = """
model: {{checkpoint: model, cache: {cache}}}
shapes: {{{shapes}}}
export: {{precision: {precision}, experts: {experts}}}
parity: {{cases: 4}}
"""
SHAPES = "batch: [1, 2, 2], sequence: [1, 3, 4]"
CACHED = SHAPES + ", past_sequence: [0, 2, 6]"


def planned(folder, precision="float32", experts="rows", shapes=SHAPES):
    cache = str(shapes == CACHED).lower()
    text = RECIPE.format(precision=precision, experts=experts, shapes=shapes, cache=cache)
    return load_recipe(write_recipe(folder, text))


def checks(report, gate):
    return {v.candidate: c for v in report.verdicts for c in v.checks if c.gate == gate}


def with_router(path, change, out):
    """The graph with another router, whose weights lie beside it."""
    shutil.copytree(path.parent, out)
    model = onnx.load(out / path.name)
    (router,) = [t for t in model.graph.initializer if t.name.endswith("mlp.gate.weight")]
    router.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(router)), router.name))
    onnx.save(model, out / path.name)
    return out / path.name


def swapped(router):
    return router[[1, 0, 2, 3]]


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtral")
    write_tiny(folder / "model", "mixtral", num_hidden_layers=1)
    recipe = planned(folder, shapes=CACHED)
    return folder, recipe, export_recipe(recipe, folder, folder / "bundle")


def test_tokens_are_counted_and_go_where_pytorch_sends_them(mixtral):
    _, _, outcome = mixtral
    report = outcome.report
    report.raise_if_failed()
    assert [row.candidate for row in report.experts] == list(report.candidates)
    for row in report.experts:
        assert row.layer == "model.model.layers.0.mlp.experts"
        assert (row.experts, row.k, row.beyond, row.near_ties) == (4, 2, 0, 0)
        assert row.same == row.tokens > 100
        assert row.load == row.reference_load
        assert sum(row.load) == 2 * row.tokens
        assert row.imbalance == pytest.approx(4 * max(row.load) / sum(row.load))
    assert checks(report, "as shipped")["onnxruntime cpu"].measured == 0.0
    stored = json.loads((outcome.folder / "parity.json").read_text())["experts"]
    assert [row["load"] for row in stored] == [list(row.load) for row in report.experts]
    page = (outcome.folder / "report.html").read_text()
    assert 'aria-label="Load of the experts of model.model.layers.0.mlp.experts"' in page


def test_all_tokens_on_the_same_experts_and_experts_without_tokens_are_among_the_cases(mixtral):
    folder, recipe, outcome = mixtral
    (row, *_) = outcome.report.experts
    assert "one token everywhere" in {case.name for case in outcome.report.cases}
    assert row.idle_cases > row.single_cases >= 1
    # Without it: a cache of noise sends even equal tokens to other experts.
    alone = {c.name: c.feeds() for c in proof_cases(make_plan(recipe, folder))}
    feeds = alone["one token everywhere"]
    assert len(np.unique(feeds["input_ids"])) == 1
    assert feeds["past_key_values.0.key"].shape[2] == 0
    assert feeds["input_ids"].size > 1


@pytest.mark.parametrize(
    ("change", "same_experts"),
    [
        (swapped, False),
        (lambda w: w + np.eye(4, 32, dtype=w.dtype) * 0.5, False),
        # Softmax keeps the order: the weights are wrong, the experts are not.
        (lambda w: w * np.float32(1.1), True),
    ],
    ids=["rows swapped", "shifted", "scaled"],
)
def test_a_wrong_router_fails(mixtral, tmp_path, change, same_experts):
    folder, recipe, outcome = mixtral
    path = with_router(outcome.folder / "model.onnx", change, tmp_path / "wrong")
    report = prove_plan(make_plan(recipe, folder), path)
    assert not report.passed
    found = checks(report, "experts")["onnxruntime cpu"]
    assert found.status == ("pass" if same_experts else "fail")
    if not same_experts:
        assert "tokens go to other experts than in PyTorch" in found.detail
        assert "in model.model.layers.0.mlp.experts by" in found.detail
        assert found.case in {case.name for case in report.cases}
        assert sum(row.beyond for row in report.experts) > 0


def near_ties(folder):
    """Two experts whose scores differ by less than a half can hold: rounding decides."""
    model = tiny("mixtral", 0, num_hidden_layers=1)
    router = model.model.layers[0].mlp.gate.weight
    with torch.no_grad():
        router[3] = router[2] * (1 + 3e-4) + 1e-4 * torch.randn(32)
    model.save_pretrained(folder / "model")


def test_half_precision_passes_with_its_near_ties_counted_and_a_wrong_router_does_not(tmp_path):
    near_ties(tmp_path)
    recipe = planned(tmp_path, precision="float16")
    outcome = export_recipe(recipe, tmp_path, tmp_path / "bundle")
    outcome.report.raise_if_failed()
    rows = {row.candidate: row for row in outcome.report.experts}
    half = rows["onnxruntime cpu"]
    assert half.near_ties > 0
    assert half.beyond == 0
    assert half.same + half.near_ties + half.behind == half.tokens
    assert rows["onnxruntime cpu, in float32"].near_ties == 0
    found = checks(outcome.report, "near ties")["onnxruntime cpu"]
    assert 0 < found.measured < found.limit
    path = with_router(outcome.folder / "model.onnx", swapped, tmp_path / "wrong")
    report = prove_plan(make_plan(recipe, tmp_path), path)
    wrong = {name: check.status for name, check in checks(report, "experts").items()}
    assert wrong == {
        "onnxruntime cpu, widened to float32": "fail",
        "onnxruntime cpu, unoptimised, in float32": "pass",  # the fresh export is right
        "onnxruntime cpu, in float32": "pass",
        "onnxruntime cpu, unoptimised": "fail",
        "onnxruntime cpu": "fail",
    }
