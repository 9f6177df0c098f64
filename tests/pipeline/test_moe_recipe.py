"""A mixture of experts as a model of a recipe, and by ``toolkit merge``."""

from __future__ import annotations

import json

import pytest
import torch

from tests.merge.dense import dense, fine_tune, logits
from tests.workshop import write_recipe
from toolkit.cli import main
from toolkit.errors import MergeError, RecipeError
from toolkit.pipeline.plan import make_plan
from toolkit.recipe import load_recipe, resolved_yaml

MOE = """
base_model: base
gate_mode: hidden
experts:
  - {source_model: a, positive_prompts: [sum product]}
  - {source_model: b, positive_prompts: [rhyme verse]}
"""
INDENTED = "".join(f"    {line}\n" for line in MOE.strip().splitlines())
RECIPE = "model:\n  moe:\n" + INDENTED + "shapes: {batch: [1, 2, 3], sequence: [1, 4, 8]}\n"


@pytest.fixture
def family(tmp_path):
    dense(tmp_path / "base", "llama")
    for seed, name in enumerate("ab", 1):
        fine_tune(tmp_path / "base", tmp_path / name, seed)
    return tmp_path


def test_it_is_planned_as_the_mixture_and_loads(family, monkeypatch, capsys):
    recipe = load_recipe(write_recipe(family, RECIPE))
    assert recipe.model.name == "moe"
    planned = make_plan(recipe, family)
    ((_, leaf),) = planned.leaves()
    assert leaf.origin.description == "mixture of 2 experts, MixtralForCausalLM, causal-lm"
    assert {path.parent.name for path in leaf.origin.files} == {"base", "a", "b"}
    assert [spec.name for spec in planned.inputs] == ["input_ids", "attention_mask"]
    # The command writes the same model.
    monkeypatch.chdir(family)
    (family / "moe.yml").write_text(MOE)
    for arguments in (["--dry-run"], ["made"]):
        with pytest.raises(SystemExit) as exit_:
            main(["merge", "moe.yml", *arguments, "--json"])
        assert exit_.value.code == 0
        assert json.loads(capsys.readouterr().out)["method"] == "moe"
    ids = torch.arange(2, 10)[None]
    module = leaf.origin.load()
    with torch.inference_mode():
        (found,) = module(input_ids=ids, attention_mask=torch.ones_like(ids))
    torch.testing.assert_close(found, logits(family / "made", ids))


def test_a_mergekit_moe_config_is_a_recipe_and_comes_back_whole(family):
    recipe = load_recipe(write_recipe(family, MOE))
    assert recipe.model.moe["gate_mode"] == "hidden"
    again = load_recipe(write_recipe(family, resolved_yaml(recipe), "again.yaml"))
    assert again == recipe


def test_a_mistake_has_its_place(family):
    wrong = RECIPE.replace("gate_mode", "gate_mood")
    with pytest.raises(RecipeError, match=r"model\.moe: unknown key 'gate_mood'"):
        load_recipe(write_recipe(family, wrong))
    with pytest.raises(RecipeError, match="a mixture in mergekit-moe's grammar"):
        load_recipe(write_recipe(family, "model: {moe: mixtral}"))


def test_it_stays_in_the_recipes_folder(family):
    text = RECIPE.replace("base_model: base", "base_model: ../base")
    recipe = load_recipe(write_recipe(family, text))
    with pytest.raises(MergeError, match="leads out"):
        make_plan(recipe, family)
