"""Members with other vocabularies are translated where that can be meant, and refused elsewhere."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.workshop import write_huggingface, write_recipe
from toolkit.errors import CheckpointError, RecipeError
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.reference import reference_runner
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

WORDS = [
    "<unk>",
    *("the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "off", "so", "it", "was"),
]
ROWS = 20  # of both models: more than words, as embeddings often are
TEXT = "the cat sat on a dog and it ran off"


def recipe_text(combine="linear", weights=(0.25, 0.75), cache="false"):
    members = ", ".join(f"{{checkpoint: {name}, cache: {cache}}}" for name in "ab")
    past = ", past_sequence: [0, 2, 9]" if cache == "true" else ""
    return (
        f"model: {{ensemble: {{combine: {combine}, weights: {list(weights)},"
        f" members: [{members}]}}}}\n"
        f"shapes: {{batch: [1, 2, 2], sequence: [1, 4, 12]{past}}}\nparity: {{cases: 1}}\n"
    )


def write_words(folder, words, *, unknown="<unk>", lower=False):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unknown))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if lower:
        made.normalizer = normalizers.Lowercase()
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models; tests give them tokenizers."""
    made = tmp_path_factory.mktemp("vocabularies")
    options = {"vocab_size": ROWS, "initializer_range": 0.3}
    write_huggingface(made / "a", "llama", 1, **options)
    write_huggingface(made / "b", "gpt2", 2, **options)
    return made


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """What the models are exported as does not depend on their tokenizers."""
    for name in "ab":
        (folder / name / "tokenizer.json").unlink(missing_ok=True)
    return export_leaves(plan_of(folder), tmp_path_factory.mktemp("members"), silent)


def plan_of(folder, text=None):
    return make_plan(load_recipe(write_recipe(folder, text or recipe_text())), folder)


def refusal(folder, text=None, kind=RecipeError):
    with pytest.raises(kind) as caught:
        plan_of(folder, text)
    return caught.value


def wanted(folder, first, second, combine):
    """The ensemble, each member fed the text through its own tokenizer, matched word by word."""
    words, own = (tokenizer.get_vocab() for tokenizer in (first, second))
    parts = []
    for name, tokenizer in zip("ab", (first, second), strict=True):
        with torch.inference_mode():
            ids = torch.tensor([tokenizer.encode(TEXT).ids])
            model = hf.AutoModelForCausalLM.from_pretrained(folder / name, dtype="float32").eval()
            parts.append(model(ids).logits[0].double().numpy())
    spoken = np.full(parts[1].shape, -np.inf)
    for row in range(len(words), ROWS):  # rows of no word, which both models have
        if row >= len(own):
            spoken[:, row] = parts[1][:, row]
    for word in set(words) & set(own):
        spoken[:, words[word]] = parts[1][:, own[word]]
    parts = [log_softmax(part) for part in (parts[0], spoken)]
    if combine == "log_linear":
        return log_softmax(0.25 * parts[0] + 0.75 * parts[1])
    return np.log(0.25 * np.exp(parts[0]) + 0.75 * np.exp(parts[1]))


def log_softmax(z):
    return torch.from_numpy(z).log_softmax(-1).numpy()


def permuted():
    return list(np.random.default_rng(3).permutation(WORDS))


SECOND = {
    "permutation": permuted(),
    "superset": [*permuted(), "more", "words"],
    "subset": [word for word in permuted() if word not in {"dog", "was"}],
}


@pytest.mark.parametrize("combine", ["linear", "log_linear"])
@pytest.mark.parametrize("kind", list(SECOND))
def test_a_translated_member_means_the_same_words(folder, exported, tmp_path, kind, combine):
    first = write_words(folder / "a", WORDS)
    second = write_words(folder / "b", SECOND[kind])
    if (kind, combine) == ("subset", "log_linear"):
        error = refusal(folder, recipe_text(combine))
        assert error.message == (
            "member 'b' lacks 2 tokens of 'a', such as 'dog', and in a log-linear ensemble a token"
            " that one member lacks is vetoed for all"
        )
        assert error.hint.startswith("name 'b' first")
        return
    plan = plan_of(folder, recipe_text(combine))
    fuse_leaves(plan, exported, tmp_path / "m.onnx", ())
    ids = np.array([first.encode(TEXT).ids])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    expected = wanted(folder, first, second, combine)
    for runner in (OrtRunner(tmp_path / "m.onnx"), reference_runner(plan, "float64")):
        with runner as run:
            found = run(feeds)["logits"][0].astype(np.float64)
        assert found.shape == (len(ids[0]), ROWS)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_equal_vocabularies_and_equal_sizes_need_no_table(folder):
    for name in "ab":
        write_words(folder / name, WORDS)
    assert [leaf.translation for _, leaf in plan_of(folder).leaves()] == [None, None]
    (folder / "b" / "tokenizer.json").unlink()
    assert [leaf.translation for _, leaf in plan_of(folder).leaves()] == [None, None]


@pytest.mark.parametrize("larger", ["a", "b"])
def test_padding_rows_are_left_out_or_never_spoken(tmp_path, larger):
    for name in "ab":
        rows = 24 if name == larger else ROWS
        write_huggingface(tmp_path / name, "llama", vocab_size=rows)
        write_words(tmp_path / name, WORDS)
    plan = plan_of(tmp_path)
    first, second = (leaf for _, leaf in plan.leaves())
    rows = 24 if larger == "a" else ROWS
    assert first.translation is None
    assert second.translation.speaks == (*range(ROWS), *[-1] * (rows - ROWS))
    assert second.translation.reads == (*range(ROWS), *[0] * (rows - ROWS))
    assert plan.inputs[0].high == rows


def test_vocabularies_that_each_lack_something(folder):
    write_words(folder / "a", WORDS)
    write_words(folder / "b", [*WORDS[:-1], "bird"])
    error = refusal(folder)
    assert error.message == (
        "members 'a' and 'b' share the input 'input_ids', but their tokenizers differ, so the same"
        " ids mean different text: 1 token of 'a', such as 'was' and 1 token of 'b', such as 'bird'"
    )
    assert error.hint == "give one an input of its own: rename: {input_ids: b_input_ids}"


def test_a_member_that_cannot_read_a_token(folder):
    write_words(folder / "a", WORDS)
    write_words(folder / "b", [w for w in WORDS if w not in {"<unk>", "cat"}], unknown="the")
    assert plan_of(folder)  # it reads what it lacks as "the", which it says is its unknown token
    write_words(folder / "b", WORDS[1:], unknown="nothing")
    error = refusal(folder)
    assert error.message == (
        "member 'b' lacks 1 token of 'a', such as '<unk>', and has no unknown token to read them as"
    )


def test_text_that_is_cut_in_another_way(folder):
    write_words(folder / "a", WORDS)
    write_words(folder / "b", WORDS, lower=True)
    assert "cut the same text into different tokens" in refusal(folder).message


def test_sizes_are_all_that_can_be_compared_without_tokenizers(tmp_path):
    for name, rows in (("a", ROWS), ("b", 24)):
        write_huggingface(tmp_path / name, "llama", vocab_size=rows)
    assert refusal(tmp_path).message == (
        "members 'a' and 'b' share the input 'input_ids', but 'a' has 20 token ids and 'b' 24, and"
        " without tokenizer.json in both folders nothing says what they mean"
    )


def test_tokenizers_that_cannot_be_read(folder):
    write_words(folder / "a", [*WORDS, *map(str, range(9))])
    assert refusal(folder, kind=CheckpointError).message.endswith(
        "gives token '6' the id 20, and the model has 20 ids"
    )
    (folder / "a" / "tokenizer.json").write_text("[]")
    assert refusal(folder, kind=CheckpointError).message.endswith(
        "tokenizer.json is no tokenizer that can be read"
    )
    (folder / "a" / "tokenizer.json").unlink()


def test_a_translated_decoder_is_proven(folder, tmp_path):
    """A member that lacks words gives -inf, which the proof compares too."""
    shop = shutil.copytree(folder, tmp_path / "shop")
    write_words(shop / "a", WORDS)
    write_words(shop / "b", SECOND["subset"])
    recipe = load_recipe(write_recipe(shop, recipe_text(cache="true")))
    outcome = export_recipe(recipe, shop, tmp_path / "out")
    assert outcome.report.passed
    assert "decode" in {case.kind for case in outcome.report.cases}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == (
        shop / "a" / "tokenizer.json"
    ).read_text()
