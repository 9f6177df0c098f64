"""What of the benchmark of engines needs no GPU: run for real, with tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.gpu import engines
from benchmarks.gpu.eager import contiguous, eager
from benchmarks.gpu.skipping import layer_feeds
from benchmarks.pages import put_section
from graphs import ExpertLayer
from tests.workshop import write_recipe, write_workshop
from toolkit.feeds import make_feeds
from toolkit.pipeline import make_plan
from toolkit.pipeline.reference import reference_runner
from toolkit.recipe import load_recipe

WITHOUT_GPU = pytest.mark.skipif("__import__('torch').cuda.is_available()")


@WITHOUT_GPU
@pytest.mark.rtx
def test_it_runs_what_the_machine_has_and_lists_the_rest(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Results\n\n## Engines\n\nwritten before\n\n## More\n\nkept\n")
    assert engines.main(["--tiny", "--only", "digits", "--json", "--write", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row["value"] for row in found["rows"]}
    assert rows["digits ensemble: proof of the graph on the CPU"] == 1
    assert rows["digits ensemble: tensorrt-rtx engine, built"] == 1
    assert rows["digits ensemble: tensorrt-rtx engine, size"] > 0
    named = " ".join(found["not_run"])
    for what in ("tensorrt engine", "proof and time", "ONNX Runtime CUDA", "PyTorch on the GPU"):
        assert what in named
    text = page.read_text()
    assert "written before" not in text
    assert "*not run*: digits ensemble: tensorrt engine: this machine lacks" in text
    assert text.index("## Engines") < text.index("## More") < text.index("kept")


def test_sections_of_a_page_are_replaced_or_appended(tmp_path):
    page = tmp_path / "page.md"
    put_section(page, "One", "first")
    put_section(page, "Two", "second")
    put_section(page, "One", "third")
    assert page.read_text() == "# Results on a GPU\n\n## One\n\nthird\n\n## Two\n\nsecond\n"


def test_the_peer_computes_what_the_recipe_means(tmp_path):
    shop = write_workshop(tmp_path)
    plan = make_plan(load_recipe(write_recipe(shop), allow_code=True), shop)
    feeds = contiguous(make_feeds(plan.inputs, {"batch": 3}, np.random.default_rng(0)))
    with reference_runner(plan, "float32") as run:
        wanted = run(feeds)["logits"]
    np.testing.assert_allclose(eager(plan, "cpu")(feeds).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("active", [2, 4, 8])
def test_as_many_experts_are_chosen_as_are_asked_for(active):
    layer = ExpertLayer("l", 8, 2, 4, 1, "", "none", "float32", 1)
    feeds = layer_feeds(layer, 16, active)
    assert len(np.unique(feeds["ids"])) == active
    largest = np.argsort(-feeds["logits"], axis=1)[:, :2]
    assert (np.sort(largest, axis=1) == np.sort(feeds["ids"], axis=1)).all()
