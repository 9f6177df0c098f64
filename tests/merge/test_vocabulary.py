"""Models with different vocabularies: unions, borrowed embeddings, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.merge.models import save, weights
from tests.merge.test_merge import config, run, tensors
from toolkit.checkpoint import open_checkpoint
from toolkit.errors import MergeError
from toolkit.merge import plan

TOKENS = {
    "base": ["<unk>", "the", "cat", "sat"],
    "a": ["<unk>", "cat", "the", "sat", "mat", "dog"],
    "b": ["<unk>", "the", "cat", "dog", "owl"],
}
UNION = ["<unk>", "the", "cat", "sat", "mat", "dog", "owl"]
EMBED = "model.embed_tokens.weight"


def tokenizer(tokens, added=()):
    vocabulary = {token: row for row, token in enumerate(tokens)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "added_tokens": list(added),
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for seed, (name, tokens) in enumerate(TOKENS.items()):
        size = len(tokens) + 1  # one row of padding
        found = weights(0, vocabulary=40) if not seed else weights(seed, vocabulary=40)
        for matrix in (EMBED, "lm_head.weight"):
            found[matrix] = found[matrix][:size]
        save(tmp_path / name, found, vocab_size=size)
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(tokenizer(tokens)))
        (tmp_path / name / "tokenizer_config.json").write_text("{}")
    return tmp_path


def linear(source, names=("base", "a", "b"), base="base_model: base\n"):
    models = "".join(f"- {{model: {n}, parameters: {{weight: 1}}}}\n" for n in names)
    return f"merge_method: linear\n{base}models:\n{models}{source}\n"


def row(folder, model, token):
    return tensors(folder / model)[EMBED][TOKENS[model].index(token)].astype(np.float64)


def test_a_union_has_every_token_and_the_mean_of_what_models_know_of_it(folder):
    run(folder, linear("tokenizer_source: union"), force=True)
    merged = open_checkpoint(folder / "out")
    embedding = np.array(merged.read(EMBED))
    assert embedding.shape == (len(UNION), 16)
    assert merged.config["vocab_size"] == len(UNION)
    known = {token: n for n, token in enumerate(UNION)}

    def mean(*rows):
        return np.mean(rows, axis=0)

    in_all = mean(*(row(folder, m, "cat") for m in TOKENS))
    assert np.allclose(embedding[known["cat"]], in_all, rtol=1e-6)
    # b lacks "sat" and takes it from the base.
    sat = [row(folder, "base", "sat"), row(folder, "a", "sat"), row(folder, "base", "sat")]
    assert np.allclose(embedding[known["sat"]], mean(*sat), rtol=1e-6)
    # Only one model has these.
    assert np.allclose(embedding[known["mat"]], row(folder, "a", "mat"), rtol=1e-6)
    assert np.allclose(embedding[known["owl"]], row(folder, "b", "owl"), rtol=1e-6)
    # The base lacks "dog", which two have: it takes their mean.
    dogs = [row(folder, "a", "dog"), row(folder, "b", "dog")]
    assert np.allclose(embedding[known["dog"]], mean(*dogs), rtol=1e-6)


def test_the_tokenizer_of_a_union_splits_text_into_the_rows_of_the_embedding(folder):
    tokenizers = pytest.importorskip("tokenizers")
    run(folder, linear("tokenizer_source: union"), force=True)
    made = tokenizers.Tokenizer.from_file(str(folder / "out" / "tokenizer.json"))
    assert made.encode("the owl sat").ids == [1, UNION.index("owl"), 3]
    assert made.get_vocab() == {token: n for n, token in enumerate(UNION)}


@pytest.mark.parametrize(("source", "tokens"), [("base", "base"), ("a", "a")])
def test_the_vocabulary_of_one_model_can_be_chosen(folder, source, tokens):
    run(folder, linear(f"tokenizer_source: {source}"), force=True)
    made = json.loads((folder / "out" / "tokenizer.json").read_text())
    assert list(made["model"]["vocab"]) == TOKENS[tokens]
    assert tensors(folder / "out")[EMBED].shape[0] == len(TOKENS[tokens])


def test_rows_of_a_model_with_all_tokens_are_kept_bit_for_bit(folder):
    run(folder, linear("tokenizer_source: a", names=("a",), base=""), force=True)
    kept = tensors(folder / "a")[EMBED][: len(TOKENS["a"])]
    assert np.array_equal(tensors(folder / "out")[EMBED], kept)


def test_tokens_can_be_given_a_source_and_the_vocabulary_a_multiple(folder):
    text = """
tokenizer:
  source: base
  pad_to_multiple_of: 8
  tokens:
    <new>: {source: {kind: zero}}
    cat: {source: a, force: true}
    sat: {source: {kind: model_token, model: b, token: owl}, force: true}
"""
    run(folder, linear(text), force=True)
    embedding = tensors(folder / "out")[EMBED].astype(np.float64)
    assert embedding.shape[0] == 8
    assert np.allclose(embedding[2], row(folder, "a", "cat"), rtol=1e-6)
    assert np.allclose(embedding[3], row(folder, "b", "owl"), rtol=1e-6)
    assert np.array_equal(embedding[4], np.zeros(16))
    assert np.allclose(embedding[5:], embedding[:5].mean(0), rtol=1e-5)
    made = json.loads((folder / "out" / "tokenizer.json").read_text())
    assert made["added_tokens"][0]["content"] == "<new>"
    assert made["added_tokens"][0]["id"] == 4


def test_different_vocabularies_are_refused_without_a_source(folder):
    with pytest.raises(MergeError, match="has shape") as caught:
        plan(config(folder, linear("")))
    assert "set tokenizer_source to union, base or a model" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokenizer_source: nobody", "tokenizer_source is 'nobody'"),
        ("tokenizer: {tokens: {x: {source: a}}}", "'x' is to come from 'a', which lacks it"),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: 99}}}}",
            "'x' is to come from row 99 of 'a'",
        ),
        ("tokenizer_source: base\ntokenizer: {}", "say the same thing"),
    ],
)
def test_wrong_settings_are_refused(folder, text, message):
    with pytest.raises(MergeError, match=message):
        plan(config(folder, linear(text)))


def test_a_model_without_a_tokenizer_is_refused_unless_its_vocabulary_is_the_donors(folder):
    (folder / "a" / "tokenizer.json").unlink()
    with pytest.raises(MergeError, match=r"a has no tokenizer\.json"):
        plan(config(folder, linear("tokenizer_source: union")))
    save(folder / "a", weights(1), vocab_size=40)
    for name in ("base", "b"):
        save(folder / name, weights(0), vocab_size=40)
    assert plan(config(folder, linear("tokenizer_source: base"))).config["vocab_size"] == 4


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model": {}}', json.dumps(tokenizer([], [{"id": -3, "content": "x"}]))]
)
def test_a_broken_tokenizer_is_one_clear_error(folder, content):
    (folder / "a" / "tokenizer.json").write_text(content)
    with pytest.raises(MergeError, match="is not a tokenizer of the tokenizers library"):
        plan(config(folder, linear("tokenizer_source: union")))
