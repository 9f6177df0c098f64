"""Mixtures that cannot be: each ends in one clear error and leaves no output."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.merge.dense import dense, fine_tune
from tests.merge.test_merge import nothing_is_left
from toolkit.errors import ToolkitError
from toolkit.merge import MergeOptions, merge, plan

pytest.importorskip("transformers")

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    dense(folder / "base", "llama")
    for seed, name in enumerate("ab", 1):
        fine_tune(folder / "base", folder / name, seed)
    return folder


@pytest.fixture
def folder(originals, tmp_path):
    """Copies that a test may spoil."""
    for model in ("base", "a", "b"):
        (tmp_path / model).mkdir()
        for file in (originals / model).iterdir():
            (tmp_path / model / file.name).write_bytes(file.read_bytes())
    return tmp_path


def unchanged(_folder):
    return


def settings(model, **changes):
    def change(folder):
        path = folder / model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(model, **changes):
    """Replace tensors; None removes one."""

    def change(folder):
        path = folder / model / "model.safetensors"
        found = {**load_file(path), **{n.replace("__", "."): t for n, t in changes.items()}}
        save_file({n: t for n, t in found.items() if t is not None}, path, {"format": "pt"})

    return change


def without(name):
    return lambda folder: (folder / "base" / name).unlink()


def unrelated(folder):
    found = load_file(folder / "b" / "model.safetensors")
    torch.manual_seed(5)
    moved = {n: torch.randn_like(t) if ".mlp." in n else t for n, t in found.items()}
    save_file(moved, folder / "b" / "model.safetensors", {"format": "pt"})


def damaged(folder):
    found = load_file(folder / "a" / "model.safetensors")
    found[UP][3, 4] = torch.nan
    save_file(found, folder / "a" / "model.safetensors", {"format": "pt"})


EXPERTS = [
    {"source_model": "a", "positive_prompts": ["sum"]},
    {"source_model": "b", "positive_prompts": ["rhyme"]},
]
LAYER_2 = {f"model.layers.2.mlp.{part}_proj.weight": None for part in ("gate", "up", "down")}

# (what is done to the models, what the config says, part of the message)
CASES = {
    # The config.
    "no experts": (unchanged, {"experts": []}, "experts: List should have at least 1 item"),
    "no base": (unchanged, {"base_model": None}, "base_model: Input should be a valid string"),
    "an unknown key": (unchanged, {"gate_modee": "random"}, "unknown key 'gate_modee'"),
    "an unknown key of an expert": (
        unchanged, {"experts": [{"model": "a"}]}, "unknown key 'experts[0].model'",
    ),
    "an unknown gate": (unchanged, {"gate_mode": "hiden"}, "gate_mode: Input should be 'hidden'"),
    "more chosen than there are": (
        unchanged, {"experts_per_token": 3}, "experts_per_token is 3, for 2 experts",
    ),
    "none chosen": (unchanged, {"experts_per_token": 0}, "greater than or equal to 1"),
    "no prompts": (
        unchanged, {"experts": [EXPERTS[0], {"source_model": "b"}]},
        "experts[1] has no positive_prompts, wanted by gate_mode hidden",
    ),
    "the same prompts": (
        unchanged, {"experts": [EXPERTS[0], {**EXPERTS[0], "source_model": "b"}]},
        "experts[0] and experts[1] have the same prompts",
    ),
    "negative noise": (
        unchanged, {"experts": [{**EXPERTS[0], "noise_scale": -1}, EXPERTS[1]]},
        "greater than or equal to 0",
    ),
    "a dtype that is none": (unchanged, {"dtype": "int4"}, "dtype is 'int4'"),
    "two shared experts": (unchanged, {"shared_experts": EXPERTS}, "at most 1 item"),
    # Prompts.
    "positive and negative alike": (
        unchanged, {"experts": [{**EXPERTS[0], "negative_prompts": ["sum"]}, EXPERTS[1]]},
        "the prompts of a leave no direction",
    ),
    "a prompt too long": (
        unchanged, {"experts": [EXPERTS[0], {**EXPERTS[1], "positive_prompts": ["x " * 40]}]},
        "a prompt has 41 tokens",
    ),
    "no tokenizer": (without("tokenizer.json"), {}, "base has no tokenizer.json"),
    "a broken tokenizer": (
        lambda folder: (folder / "base" / "tokenizer.json").write_text("{}"), {},
        "tokenizer.json is not a tokenizer",
    ),
    "a tokenizer of another model": (
        lambda folder: (folder / "base" / "tokenizer.json").write_text(
            (folder / "base" / "tokenizer.json").read_text().replace('"rhyme":5', '"rhyme":500')
            .replace('"rhyme": 5', '"rhyme": 500')
        ), {}, "the prompt 'rhyme' has token 500, and base has 97 embeddings",
    ),
    "an empty prompt": (
        without("tokenizer_config.json"),
        {"experts": [EXPERTS[0], {**EXPERTS[1], "positive_prompts": [""]}]},
        "the prompt '' has no tokens",
    ),
    # Architectures.
    "an architecture nobody knows": (unchanged, {"architecture": "deepseek"}, "architecture:"),
    "another family's architecture": (
        unchanged, {"architecture": "qwen3"}, "architecture is qwen3_moe, which holds layers of",
    ),
    "no shared expert in Mixtral": (
        unchanged, {"architecture": "mixtral", "shared_experts": EXPERTS[:1]},
        "which has no shared expert",
    ),
    "a family that is not held": (
        settings("base", model_type="gpt2"), {}, "is of type 'gpt2', and no architecture is known",
    ),
    "a window that cannot be kept": (
        settings("base", sliding_window=8), {"architecture": "qwen2_moe"}, "reaches back 8 tokens",
    ),
    # Models that do not fit together.
    "a base without a tensor": (
        weights("base", model__norm__weight=None), {}, "base has no tensor 'model.norm.weight'",
    ),
    "a base with a tensor that has no place": (
        weights("base", **{UP.replace("weight", "bias"): torch.zeros(48)}), {},
        "for which mixtral has no place",
    ),
    "an expert of another width": (
        weights("b", **{UP: torch.zeros(64, 32)}), {},
        f"'{UP}' has shape [64, 32] in b and [48, 32] in base",
    ),
    "an expert with fewer layers": (weights("b", **LAYER_2), {}, "and b does not"),
    "an expert with more layers": (
        weights("b", **{n.replace(".2.", ".3."): torch.zeros(1) for n in LAYER_2}), {},
        "and base does not",
    ),
    "an expert of another family": (
        settings("b", model_type="mistral"), {}, "b has model_type 'mistral', and base has 'llama'",
    ),
    "an expert of another activation": (
        settings("b", hidden_act="gelu"), {}, "b has hidden_act 'gelu', and base has 'silu'",
    ),
    "an unrelated expert": (unrelated, {}, "feed-forward layers of b and base have a median"),
    "NaN": (damaged, {}, "a: tensor 'model.layers.1.block_sparse_moe.experts.0.w3.weight' holds"),
    "a quantised expert": (
        settings("b", quantization_config={"quant_method": "gptq"}), {}, "b is quantised",
    ),
    "no such expert": (
        unchanged, {"experts": [EXPERTS[0], {**EXPERTS[1], "source_model": "org/c"}]},
        "model 'org/c' is not a folder or file here",
    ),
    "a base that is a file": (
        unchanged, {"base_model": "base/model.safetensors"}, "is of type 'unnamed'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_nothing_is_left(folder, case):
    spoil, config, text = CASES[case]
    spoil(folder)
    path = folder / "moe.yml"
    path.write_text(yaml.safe_dump({"base_model": "base", "experts": EXPERTS, **config}))
    with pytest.raises(ToolkitError, match=re.escape(text)) as error:
        merge(path, folder / "out", MergeOptions())
    assert "\n" not in error.value.message
    assert nothing_is_left(folder)


def test_force_takes_an_unrelated_expert_and_says_so(folder):
    unrelated(folder)
    path = folder / "moe.yml"
    path.write_text(yaml.safe_dump({"base_model": "base", "experts": EXPERTS}))
    report = merge(path, folder / "out", MergeOptions(force=True))
    assert any("taken because of --force" in warning for warning in report.warnings)


def test_a_confined_mixture_stays_in_its_folder(folder):
    inside = folder / "inside"
    inside.mkdir()
    (inside / "moe.yml").write_text(yaml.safe_dump({"base_model": "../base", "experts": EXPERTS}))
    with pytest.raises(ToolkitError, match="leads out of the recipe's folder"):
        plan(inside / "moe.yml", MergeOptions(confined=True))
