"""Which cases of a proof an explanation looks into."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import yaml

from tests.workshop import write_huggingface
from toolkit.pipeline import make_plan
from toolkit.pipeline.explain import telling_cases
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

STEPS = 7


def decoder(folder):
    """The plan of a tiny decoder with a cache, and its graph."""
    write_huggingface(folder / "model", "llama")
    recipe = {
        "model": {"checkpoint": "model", "cache": True},
        "shapes": {"batch": [1, 2, 3], "sequence": [1, 2, 4], "past_sequence": [0, 4, 8]},
        "parity": {"cases": 2},
        "target": "onnx",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plan = make_plan(load_recipe(folder / "recipe.yaml"), folder)
    work = folder / "work"
    work.mkdir()
    fuse_leaves(plan, export_leaves(plan, work, silent), folder / "model.onnx", ())
    return plan, folder / "model.onnx"


def test_a_decode_that_fails_is_looked_into_step_by_step(tmp_path):
    plan, graph = decoder(tmp_path)
    decode = next(case.name for case in proof_cases(plan) if case.kind == "decode")
    assert decode.startswith(f"decode {STEPS} steps")
    report = SimpleNamespace(worst=[SimpleNamespace(case=decode)])
    samples = telling_cases(plan, report, 4, graph=graph)
    assert [case.name for case in samples[:2]] == [
        f"{decode}, step {STEPS // 2 + 1}",
        f"{decode}, step {STEPS}",
    ]
    assert len(samples) == 4
    last = samples[1].feeds()
    past = next(array for name, array in last.items() if name.startswith("past_key_values."))
    assert past.shape[2] == last["attention_mask"].shape[1] - 1  # one token after all the others
    with OrtRunner(graph) as run:
        assert np.isfinite(samples[1].run(run)["logits"]).all()


def test_without_a_report_the_first_cases_that_are_one_run_each_are_taken(tmp_path):
    plan, graph = decoder(tmp_path)
    samples = telling_cases(plan, None, 3, graph=graph)
    wanted = [case.name for case in proof_cases(plan) if case.drive is None][:3]
    assert [case.name for case in samples] == wanted
