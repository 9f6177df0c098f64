"""A merge as a model of a recipe: merged, exported and proven in one command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import write_huggingface, write_recipe
from toolkit.errors import MergeError, RecipeError
from toolkit.pipeline import export_recipe, prove_bundle
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner, TorchRunner
from toolkit.sources import HuggingFaceSource

SHAPES = "shapes: {batch: [1, 2, 3], sequence: [1, 4, 8]}\nparity: {cases: 2}\n"
MERGE = """
merge_method: linear
models:
  - {model: a, parameters: {weight: 0.25}}
  - {model: b, parameters: {weight: 0.75}}
dtype: float32
"""


@pytest.fixture
def siblings(tmp_path):
    """Two fine-tunes ``a`` and ``b`` of one BERT."""
    for name, seed in (("a", 1), ("b", 2)):
        folder = write_huggingface(tmp_path / name, "bert")
        path = folder / "model.safetensors"
        generator = torch.Generator().manual_seed(seed)
        moved = {
            key: value
            + 0.01 * value.std(unbiased=False) * torch.randn(value.shape, generator=generator)
            for key, value in load_file(path).items()
        }
        save_file(moved, path, metadata={"format": "pt"})
    return tmp_path


def indented(text, by):
    return "".join(f"{' ' * by}{line}\n" for line in text.strip().splitlines())


def mean(folder):
    """The merged model by hand, as a folder."""
    parts = [load_file(folder / name / "model.safetensors") for name in "ab"]
    merged = {key: 0.25 * parts[0][key] + 0.75 * parts[1][key] for key in parts[0]}
    out = write_huggingface(folder / "mean", "bert")
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})
    return out


def test_merge_is_exported_as_the_merged_model(siblings):
    recipe = write_recipe(siblings, "model:\n  merge:\n" + indented(MERGE, 4) + SHAPES)
    outcome = export_recipe(load_recipe(recipe), siblings, siblings / "out")
    assert outcome.report.passed
    assert {s.path for s in outcome.manifest.sources} == {
        "a/model.safetensors",
        "b/model.safetensors",
    }
    feeds = {
        "input_ids": np.arange(8).reshape(2, 4), "attention_mask": np.ones((2, 4), np.int64),
        "token_type_ids": np.zeros((2, 4), np.int64),
    }  # fmt: skip
    with TorchRunner(HuggingFaceSource("mean", mean(siblings)), "float64") as by_hand:
        expected = by_hand(feeds)["logits"]
    with OrtRunner(siblings / "out" / "model.onnx") as runner:
        np.testing.assert_allclose(runner(feeds)["logits"], expected, atol=1e-6)
    assert prove_bundle(siblings / "out").passed


def test_mergekit_config_is_a_recipe(siblings):
    recipe = load_recipe(write_recipe(siblings, MERGE))
    assert recipe.model.merge["merge_method"] == "linear"
    assert recipe.model.name == "linear"


def test_merge_is_a_member_like_any_other(siblings):
    text = (
        "model:\n  ensemble:\n    combine: linear\n    members:\n      - checkpoint: a\n"
        "      - merge:\n" + indented(MERGE, 10) + SHAPES
    )
    outcome = export_recipe(load_recipe(write_recipe(siblings, text)), siblings, siblings / "out")
    assert outcome.report.passed


def test_mistake_in_the_merge_has_its_place(siblings):
    text = "model:\n  merge:\n" + indented(MERGE.replace("dtype", "dtpye"), 4) + SHAPES
    with pytest.raises(RecipeError, match=r"model\.merge: unknown key 'dtpye'"):
        load_recipe(write_recipe(siblings, text))


def test_merge_stays_in_the_recipes_folder(siblings, tmp_path_factory):
    outside = write_huggingface(tmp_path_factory.mktemp("outside") / "c", "bert")
    text = (
        "model:\n  merge:\n" + indented(MERGE.replace("model: b", f"model: {outside}"), 4) + SHAPES
    )
    recipe = load_recipe(write_recipe(siblings, text))
    with pytest.raises(MergeError):
        export_recipe(recipe, siblings, siblings / "out")
    assert not (siblings / "out").exists()


def test_command_line_merges_and_plans(siblings, monkeypatch, capsys):
    from toolkit.cli import main

    monkeypatch.chdir(siblings)
    (siblings / "merge.yaml").write_text(MERGE)
    for arguments in (["--dry-run"], ["merged"]):
        with pytest.raises(SystemExit) as exit_:
            main(["merge", "merge.yaml", *arguments, "--json"])
        assert exit_.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert found["method"] == "linear"
        assert (siblings / "merged").exists() == (arguments != ["--dry-run"])
    merged = load_file(siblings / "merged" / "model.safetensors")
    expected = load_file(mean(siblings) / "model.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-8)


def test_command_line_wants_a_folder(siblings, monkeypatch, capsys):
    from toolkit.cli import main

    monkeypatch.chdir(siblings)
    (siblings / "merge.yaml").write_text(MERGE)
    with pytest.raises(SystemExit) as exit_:
        main(["merge", "merge.yaml"])
    assert exit_.value.code == 2
    assert "--dry-run" in capsys.readouterr().err
