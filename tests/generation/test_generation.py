"""Text from a bundle, held against transformers' own generation on the same weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.workshop import write_huggingface
from toolkit.cli import main
from toolkit.errors import BundleError, RecipeError
from toolkit.generation import GenerationSettings, Generator
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

PROMPTS = ([5, 17, 3], [90, 2], [1, 2, 3, 4, 5, 6])
WORDS = [f"w{number}" for number in range(97)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama with a tokenizer of 97 words, and its bundle."""
    folder = tmp_path_factory.mktemp("generation")
    write_huggingface(folder / "model", "llama", max_position_embeddings=64)
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    recipe = {
        "model": {"checkpoint": "model", "cache": True},
        "shapes": {"batch": [1, 2, 4], "sequence": [1, 4, 8], "past_sequence": [0, 8, 40]},
        "parity": {"cases": 2},
        "target": "onnx",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    export_recipe(load_recipe(folder / "recipe.yaml"), folder, folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()


@pytest.fixture
def generator(folder):
    return Generator(folder / "bundle", threads=1)


def run(arguments):
    """The command line's exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def by_transformers(model, prompt, end, count, **options):
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = 0
    ids = torch.tensor([prompt])
    found = model.generate(ids, do_sample=False, max_new_tokens=count, **options)
    return tuple(found[0, len(prompt) :].tolist())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_and_beams_are_those_of_transformers(generator, model, prompt):
    generator.ends = frozenset()
    greedy = by_transformers(model, prompt, None, 30)
    assert generator([prompt], GenerationSettings(30))[0].tokens == greedy
    # a token that does come ends some hypotheses early
    for end in (None, greedy[4], greedy[11]):
        generator.ends = frozenset([] if end is None else [end])
        assert generator([prompt], GenerationSettings(30))[0].tokens == by_transformers(
            model, prompt, end, 30
        )
        for beams, penalty in ((3, 1.0), (4, 0.5)):
            wanted = by_transformers(
                model, prompt, end, 24, num_beams=beams, length_penalty=penalty
            )
            settings = GenerationSettings(24, beams=beams, length_penalty=penalty)
            assert generator([prompt], settings)[0].tokens == wanted, (end, beams)


def test_prompts_of_different_lengths_in_a_batch_give_what_each_gives_alone(generator):
    generator.ends = frozenset()
    settings = GenerationSettings(30)
    together = [one.tokens for one in generator(PROMPTS, settings)]
    assert together == [generator([prompt], settings)[0].tokens for prompt in PROMPTS]


def test_sampling_follows_the_seed_and_the_distribution(generator):
    generator.ends = frozenset()
    drawn = [
        generator([PROMPTS[0]], GenerationSettings(20, temperature=2.0, seed=seed))[0].tokens
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    only = GenerationSettings(20, temperature=2.0, top_k=1, seed=5)
    assert generator([PROMPTS[0]], only) == generator([PROMPTS[0]], GenerationSettings(20))


def test_what_is_told_grows_to_what_is_returned(generator):
    told = {0: [], 1: []}
    found = generator(
        PROMPTS[:2], GenerationSettings(5), lambda number, tokens: told[number].append(tokens)
    )
    for number, one in enumerate(found):
        assert told[number] == [one.tokens[: n + 1] for n in range(len(one.tokens))]


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[]], {}, "prompt 1 is empty"),
        ([[1], [97]], {}, "prompt 2 has token 97, and the model knows 0 to 96"),
        ([[1]] * 5, {}, "5 rows, and the graph takes up to 4"),
        ([[1]], {"beams": 5}, "5 rows, and the graph takes up to 4"),
        ([list(range(9))], {}, "has 9 tokens, and the graph takes up to 8"),
        ([[1, 2]], {"max_new_tokens": 41}, "need a cache of 41 positions"),
    ],
)
def test_what_the_graph_cannot_do_is_refused(generator, prompts, settings, message):
    with pytest.raises(RecipeError, match=message):
        generator(prompts, GenerationSettings(**{"max_new_tokens": 4, **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, wanted at least 1"),
        ({"temperature": -1.0}, "temperature is -1, wanted at least 0"),
        ({"top_p": 0.0, "temperature": 1.0}, r"top_p is 0, wanted in \(0, 1\]"),
        ({"top_k": 5}, "with a temperature of 0"),
        ({"beams": 2, "temperature": 1.0}, "2 beams with a temperature"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        GenerationSettings(**settings)


def test_the_longest_text_that_is_allowed_fits(generator):
    generator.ends = frozenset()
    found = generator([[1, 2]], GenerationSettings(40))
    assert len(found[0].tokens) == 40


def test_the_command_streams_text_and_prints_json(folder, model, capsys):
    wanted = by_transformers(model, [5, 17, 3], None, 6)
    command = ["generate", str(folder / "bundle"), "--max-new-tokens", "6"]
    assert run([*command, "--prompt", "w5 w17 w3"]) == 0
    shown = capsys.readouterr()
    assert shown.out == " ".join(WORDS[token] for token in wanted) + "\n"
    assert "6 tokens in" in shown.err
    assert run([*command, "--ids", "5,17,3", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["tokens"] == list(wanted)
    assert run([*command, "--ids", "5,x"]) == 2
    assert "found '5,x', wanted whole numbers" in capsys.readouterr().err
    assert run(command) == 2


def test_a_bundle_that_is_no_decoder_is_refused_with_the_way_to_one(exported_classifier):
    with pytest.raises(BundleError, match="no decoder with caches") as error:
        Generator(exported_classifier)
    assert "cache: true" in error.value.hint


@pytest.fixture
def exported_classifier(folder, tmp_path):
    """The bundle with the manifest of a model without caches."""
    copy = shutil.copytree(folder / "bundle", tmp_path / "bundle")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["inputs"] = manifest["inputs"][:2]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_chosen_tokens_have_the_probabilities_that_are_asked_for():
    from toolkit.generation.choosing import choose

    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    rng = np.random.default_rng(0)

    def shares(**settings):
        made = GenerationSettings(1, **settings)
        drawn = [int(choose(logits, made, rng)[0]) for _ in range(20_000)]
        return np.bincount(drawn, minlength=4) / len(drawn)

    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    # 0.5 + 0.3 reach 0.8, and the third is needed for anything above
    assert shares(temperature=1.0, top_p=0.8) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    nucleus = np.array([0.5, 0.3, 0.15, 0]) / 0.95
    assert shares(temperature=1.0, top_p=0.81) == pytest.approx(nucleus, abs=0.015)
    square = np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365
    assert shares(temperature=0.5) == pytest.approx(square, abs=0.015)
