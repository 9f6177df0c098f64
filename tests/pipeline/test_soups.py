"""A soup as a model of a recipe, and by ``toolkit soup``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import weights, write_recipe
from toolkit.cli import main
from toolkit.errors import RecipeError
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

RECIPE = """
model:
  soup:
    accuracy: heldout.npz
    members:
      - {factory: "shop:linear", weights: good.safetensors, name: good}
      - {factory: "shop:linear", weights: twin.safetensors, name: twin}
      - {factory: "shop:linear", weights: bad.safetensors, name: bad}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 2}
"""


@pytest.fixture
def kitchen(shop, monkeypatch):
    """Two fine-tunes that agree with the labels, and their negative."""
    base = weights("linear")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype(np.float32)
    labels = (torch.from_numpy(x) @ base["inner.weight"].T + base["inner.bias"]).argmax(-1)
    np.savez(shop / "heldout.npz", x=x, labels=labels.numpy())
    save_file(base, shop / "good.safetensors")
    twin = {name: value * 1.01 for name, value in base.items()}
    save_file(twin, shop / "twin.safetensors")
    save_file({name: -3 * value for name, value in base.items()}, shop / "bad.safetensors")
    monkeypatch.chdir(shop)
    return shop


def test_greedy_soup_leaves_the_bad_one_out_and_is_exported(kitchen):
    outcome = export_recipe(
        load_recipe(write_recipe(kitchen, RECIPE), allow_code=True), kitchen, kitchen / "out"
    )
    assert outcome.report.passed


def test_command_tells_every_decision_and_writes_the_average(kitchen, capsys):
    write_recipe(kitchen, RECIPE)
    with pytest.raises(SystemExit) as exit_:
        main(["soup", "recipe.yaml", "made", "--allow-code", "--json"])
    assert exit_.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert {step["name"]: step["kept"] for step in found["steps"]} == {
        "good": True, "twin": True, "bad": False,
    }  # fmt: skip
    assert found["score"] >= found["best_member"]
    (file,) = (kitchen / "made").glob("*.safetensors")
    expected = weights("linear")["inner.weight"] * (2.01 / 2)
    torch.testing.assert_close(load_file(file)["inner.weight"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("accuracy: heldout.npz", "kind: uniform"), "found no score, wanted either accuracy"),
        (("accuracy: heldout.npz", "accuracy: lost.npz"), "'lost.npz' does not exist"),
        (("kind", "kind"), ""),
    ],
)
def test_mistakes(kitchen, change, text):
    if not text:
        few = RECIPE.replace(
            '      - {factory: "shop:linear", weights: twin.safetensors, name: twin}\n', ""
        ).replace('      - {factory: "shop:linear", weights: bad.safetensors, name: bad}\n', "")
        path, text = write_recipe(kitchen, few), "found 1, wanted two or more"
    else:
        path = write_recipe(kitchen, RECIPE.replace(*change))
    with pytest.raises(RecipeError, match=text):
        load_recipe(path, allow_code=True)


def test_soup_of_something_else_is_refused(kitchen, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["soup", "../shop/recipe.yaml", "made", "--allow-code"])
    assert exit_.value.code == 1
