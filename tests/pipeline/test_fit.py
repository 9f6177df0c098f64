"""toolkit fit-gate: constants and gates from data to a recipe that exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.workshop import weights, write_huggingface, write_recipe
from toolkit.cli import main
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

RECIPE = """
model:
  ensemble:
    combine: {combine}
    {weights}
    members:
      - {{factory: "shop:linear", weights: a.safetensors, name: a}}
      - {{factory: "shop:linear", weights: b.safetensors, name: b}}
inputs: {{x: "float32[batch, 6]"}}
shapes: {{batch: [1, 4, 8]}}
parity: {{cases: 2}}
"""
GATE = """gate:
      {options}
      model:
        factory: "toolkit.gates:features"
        weights: gate.safetensors
        kwargs: {{inputs: 6, members: 2}}
        name: judge"""


def recipe(combine="linear", options="top_k: 1", gate=True):
    return RECIPE.format(combine=combine, weights=GATE.format(options=options) if gate else "")


@pytest.fixture
def kitchen(shop, monkeypatch):
    """Two members; the sign of the first feature says which of them the labels follow."""
    tensors = [weights("linear", seed) for seed in (11, 12)]
    for name, one in zip("ab", tensors, strict=True):
        save_file({key: 3 * value for key, value in one.items()}, shop / f"{name}.safetensors")
    x = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    said = [torch.from_numpy(x) @ one["inner.weight"].T + one["inner.bias"] for one in tensors]
    labels = torch.where(torch.from_numpy(x[:, 0]) > 0, *(logits.argmax(-1) for logits in said))
    np.savez(shop / "heldout.npz", x=x, labels=labels.numpy())
    monkeypatch.chdir(shop)
    return shop


def fit(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as exit_:
        main(["fit-gate", "recipe.yaml", "--data", "heldout.npz", *arguments])
    found = capsys.readouterr()
    assert exit_.value.code == code, found.err
    return found


@pytest.mark.parametrize(
    ("combine", "options"),
    [
        ("linear", "top_k: 1"),
        ("linear", ""),
        ("log_linear", "activation: softplus"),
    ],
)
def test_a_gate_is_trained_and_beats_the_constants_and_the_recipe_exports(
    kitchen, capsys, combine, options
):
    write_recipe(kitchen, recipe(combine, options))
    arguments = ("--allow-code", "--json", "--epochs", "60", "--rate", "0.1")
    found = json.loads(fit(capsys, *arguments).out)
    rows = {row["name"]: row["validation"] for row in found["rows"]}
    every = ["gate, all members"] if "top_k" in options else []
    assert list(rows) == ["a", "b", "uniform weights", "constant weights", *every, "gate"]
    assert rows["gate"]["nll"] < rows["constant weights"]["nll"] - 0.1
    assert rows["gate"]["accuracy"] > max(rows["a"]["accuracy"], rows["b"]["accuracy"])
    assert not found["worse_than_constants"]
    first = (kitchen / "gate.safetensors").read_bytes()
    fit(capsys, *arguments)
    assert (kitchen / "gate.safetensors").read_bytes() == first
    outcome = export_recipe(
        load_recipe(kitchen / "recipe.yaml", allow_code=True), kitchen, kitchen / "out"
    )
    outcome.report.raise_if_failed()
    assert "judge" in {source.member for source in outcome.manifest.sources}


def test_constants_are_printed_to_paste_and_written(kitchen, capsys):
    write_recipe(kitchen, recipe(gate=False))
    found = fit(capsys, "--allow-code", "--constant", "--out", "weights.yaml")
    line = (kitchen / "weights.yaml").read_text().strip()
    assert line in found.out
    made = yaml.safe_load(line)["weights"]
    assert sum(made) == pytest.approx(1, abs=1e-6)
    write_recipe(
        kitchen, recipe(gate=False).replace("combine: linear\n", f"combine: linear\n    {line}\n")
    )
    load_recipe(kitchen / "recipe.yaml", allow_code=True)


def test_a_gate_that_is_worse_than_constants_says_so(kitchen, capsys):
    """One member stays, whichever the labels follow: the constants may mix."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 6)).astype(np.float32), rng.integers(0, 4, 200)
    np.savez(kitchen / "heldout.npz", x=x, labels=labels)
    write_recipe(kitchen, recipe())
    found = fit(capsys, "--allow-code", "--epochs", "2")
    said = " ".join(found.out.split())
    assert "the gate is WORSE than constant weights on the validation split: use weights: [" in said


def test_the_cache_serves_the_second_fit(kitchen, capsys):
    write_recipe(kitchen, recipe())
    one = fit(capsys, "--allow-code", "--cache", "said", "--epochs", "1")
    assert "run a" in one.err
    two = fit(capsys, "--allow-code", "--cache", "said", "--epochs", "1")
    assert "run a" not in two.err
    assert two.out == one.out
    save_file(weights("linear", 13), kitchen / "a.safetensors")
    three = fit(capsys, "--allow-code", "--cache", "said", "--epochs", "1").err
    assert "run a" in three
    assert "run b" not in three


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        (recipe(gate=False), (), "ensemble 'ensemble' has no gate to train"),
        (
            recipe().replace("combine: linear", "combine: linear\n    space: values"),
            (),
            "have no likelihood",
        ),
        (recipe(), ("--validation", "0"), "too few to keep a share of 0 for validation"),
        (recipe(), ("--data", "shop.py"), "shop.py is none of .npz, .safetensors, .txt, .jsonl"),
        (recipe(), ("--data", "lost.npz"), "there is no data file lost.npz"),
        (recipe(), ("--data", "words.txt"), "no member has a tokenizer.json"),
        (
            recipe().replace("toolkit.gates:features", "toolkit.gates:nothing"),
            (),
            "has no callable",
        ),
        (recipe().replace("inputs: 6", "inputs: 7"), (), "gate"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_and_writes_nothing(
    kitchen, capsys, text, arguments, error
):
    (kitchen / "words.txt").write_text("some words")
    write_recipe(kitchen, text)
    found = fit(capsys, "--allow-code", *arguments, code=1)
    assert error in found.err
    assert "Traceback" not in found.err
    assert not (kitchen / "gate.safetensors").exists()
    assert not list(kitchen.glob(".gate*"))


def test_a_gate_of_ours_needs_no_permission_and_another_does(kitchen, capsys):
    write_recipe(kitchen, recipe())
    err = fit(capsys, code=1).err
    assert "shop:linear is Python code that the recipe would run" in err
    assert "toolkit.gates:features" not in err


TEXT = """
model:
  ensemble:
    combine: {combine}
    gate:
      {options}
      model:
        factory: "toolkit.gates:{gate}"
        weights: gate.safetensors
        kwargs: {{vocabulary: 97, members: 2, width: 4}}
    members: [{{checkpoint: llama}}, {{checkpoint: gpt2}}]
shapes: {{batch: [1, 2, 4], sequence: [1, 8, 16]}}
parity: {{cases: 2}}
"""


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    """Two tiny causal models, a tokenizer of single characters and a text."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("writers")
    write_huggingface(folder / "llama", "llama")
    write_huggingface(folder / "gpt2", "gpt2")
    vocabulary = {chr(32 + n): n for n in range(95)} | {"[UNK]": 95, "[PAD]": 96}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    for name in ("llama", "gpt2"):
        made.save(str(folder / name / "tokenizer.json"))
    (folder / "text.txt").write_text("the cat sat on the mat and the dog did not. " * 20)
    return folder


@pytest.mark.parametrize(
    "case",
    [("linear", "top_k: 1", "tokens"), ("log_linear", "activation: softplus", "last_token")],
)
def test_texts_give_every_position_its_weights(writers, monkeypatch, capsys, case):
    monkeypatch.chdir(writers)
    keys = ("combine", "options", "gate")
    write_recipe(writers, TEXT.format(**dict(zip(keys, case, strict=True))))
    found = fit(
        capsys, "--data", "text.txt", "--window", "16", "--batch", "4", "--epochs", "5", "--json"
    )
    rows = {row["name"]: row["validation"] for row in json.loads(found.out)["rows"]}
    assert rows["gate"]["perplexity"] == pytest.approx(np.exp(rows["gate"]["nll"]))
    soft = rows.get("gate, all members", rows["gate"])
    assert soft["nll"] <= rows["constant weights"]["nll"] + 1e-6
    assert rows["constant weights"]["nll"] <= min(rows["llama"]["nll"], rows["gpt2"]["nll"]) + 0.02
    state = load_file(writers / "gate.safetensors")
    assert state["embedding.weight"].shape == (97, 4)
    outcome = export_recipe(load_recipe(writers / "recipe.yaml"), writers, writers / "out")
    outcome.report.raise_if_failed()


COMBINED = """
model:
  stack:
    stages:
      - {checkpoint: llama}
      - {checkpoint: gpt2}
      - factory: "toolkit.gates:combiner"
        weights: combiner.safetensors
        kwargs: {logits: "one, other", classes: 97}
    feeds:
      one: {output: llama/logits, type: "float32[batch, sequence, 97]"}
      other: {output: gpt2/logits, type: "float32[batch, sequence, 97]"}
shapes: {batch: [1, 2, 4], sequence: [1, 8, 16]}
parity: {cases: 2}
"""


def test_a_combiner_learns_from_texts_what_its_stages_do_not_know(writers, monkeypatch, capsys):
    monkeypatch.chdir(writers)
    write_recipe(writers, COMBINED)
    found = fit(
        capsys, "--data", "text.txt", "--window", "16", "--batch", "4", "--epochs", "5", "--json"
    )
    rows = {row["name"]: row["validation"] for row in json.loads(found.out)["rows"]}
    assert list(rows) == ["llama", "gpt2", "uniform mixture", "combiner"]
    assert rows["combiner"]["nll"] < rows["llama"]["nll"] - 1
    outcome = export_recipe(load_recipe(writers / "recipe.yaml"), writers, writers / "stacked")
    outcome.report.raise_if_failed()
