"""toolkit fit-gate on a stack: from data to a combiner that beats its members, and exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import weights, write_recipe
from toolkit.cli import main
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe
from toolkit.runtime import TorchRunner

RECIPE = """
model:
  stack:
    stages:
      - {factory: "shop:linear", weights: a.safetensors, name: a}
      - ensemble:
          combine: linear
          members:
            - {factory: "shop:linear", weights: b.safetensors, name: b1}
            - {factory: "shop:linear", weights: b.safetensors, name: b2}
        name: b
      - factory: "toolkit.gates:combiner"
        name: judge
        weights: judge.safetensors
        kwargs: {logits: "said, b_logits", classes: 4, hidden: 8}
        rename: {said: a_logits}
    feeds:
      a_logits: {output: a/logits, type: "float32[batch, 4]"}
      b_logits: {output: b/logits, type: "float32[batch, 4]"}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 2}
"""


@pytest.fixture
def kitchen(shop, monkeypatch):
    """What a calls class k the labels call k + 1, where b does not insist on something else."""
    tensors = [weights("linear", seed) for seed in (11, 12)]
    for name, one in zip("ab", tensors, strict=True):
        save_file({key: 2 * value for key, value in one.items()}, shop / f"{name}.safetensors")
    x = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    a, b = (torch.from_numpy(x) @ one["inner.weight"].T + one["inner.bias"] for one in tensors)
    labels = (a.roll(1, -1) + b).argmax(-1)
    np.savez(shop / "heldout.npz", x=x, labels=labels.numpy())
    monkeypatch.chdir(shop)
    write_recipe(shop, RECIPE)
    return shop


def fit(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as exit_:
        main(["fit-gate", "recipe.yaml", "--data", "heldout.npz", "--allow-code", *arguments])
    found = capsys.readouterr()
    assert exit_.value.code == code, found.err
    return found


def test_a_combiner_is_trained_beats_its_members_and_the_recipe_exports(
    kitchen, capsys, monkeypatch
):
    arguments = ("--json", "--epochs", "30", "--cache", "said")
    found = json.loads(fit(capsys, *arguments).out)
    rows = {row["name"]: row["validation"] for row in found["rows"]}
    assert list(rows) == ["a", "b", "uniform mixture", "combiner"]
    best = max(rows[name]["accuracy"] for name in ("a", "b", "uniform mixture"))
    assert rows["combiner"]["accuracy"] > best + 0.2
    assert rows["combiner"]["nll"] < rows[found["rival"]]["nll"] / 2
    assert not found["worse_than_rival"]
    first = (kitchen / "judge.safetensors").read_bytes()
    # the stages' outputs come from the cache, and the same seed gives the same weights
    monkeypatch.setattr(TorchRunner, "__call__", None)
    fit(capsys, *arguments)
    monkeypatch.undo()
    assert (kitchen / "judge.safetensors").read_bytes() == first
    recipe = load_recipe(kitchen / "recipe.yaml", allow_code=True)
    outcome = export_recipe(recipe, kitchen, kitchen / "out")
    outcome.report.raise_if_failed()


def test_the_rows_say_what_the_stages_say(kitchen, capsys):
    found = json.loads(fit(capsys, "--json", "--epochs", "1").out)
    given = np.load(kitchen / "heldout.npz")
    said = []
    for name in "ab":
        one = load_file(kitchen / f"{name}.safetensors")
        logits = torch.from_numpy(given["x"]) @ one["inner.weight"].T + one["inner.bias"]
        said.append(logits.double().log_softmax(-1))
    said.append(torch.stack(said).exp().mean(0).log())
    for row, logs in zip(found["rows"], said, strict=False):
        parts = [row["fitted"], row["validation"]]
        count = sum(part["labels"] for part in parts)
        nll = sum(part["nll"] * part["labels"] for part in parts) / count
        right = sum(part["accuracy"] * part["labels"] for part in parts) / count
        labels = torch.from_numpy(given["labels"])
        assert nll == pytest.approx(float(-logs.gather(-1, labels[:, None]).mean()), rel=1e-5)
        assert right == pytest.approx(float((logs.argmax(-1) == labels).double().mean()))


def test_a_combiner_that_is_worse_than_a_stage_says_so(kitchen, capsys):
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(60, 6)).astype(np.float32), load_file(kitchen / "a.safetensors")
    logits = torch.from_numpy(x) @ a["inner.weight"].T + a["inner.bias"]
    np.savez(kitchen / "heldout.npz", x=x, labels=logits.argmax(-1).numpy())
    said = " ".join(fit(capsys, "--epochs", "1", "--rate", "1e-6").out.split())
    assert "the combiner is WORSE than a on the validation split: use that" in said


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("", ""), ["--constant"], "the stack 'stack' has no constant weights to fit"),
        (
            ("classes: 4, hidden: 8", "classes: 3"),
            [],
            "the combiner cannot run on the data: mat1 and mat2 shapes",
        ),
        (
            ('"said, b_logits"', '"said, b logits"'),
            [],
            "the combiner's logits are 'said, b logits', and 'b logits' is no name of an input",
        ),
    ],
)
def test_what_cannot_be_fitted_is_told_in_one_line(kitchen, capsys, change, arguments, message):
    write_recipe(kitchen, RECIPE.replace(*change))
    found = fit(capsys, *arguments, code=1)
    assert message in " ".join(found.err.split())
    assert "Traceback" not in found.err
    assert not (kitchen / "judge.safetensors").exists()
