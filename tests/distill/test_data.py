"""What students learn from: every kind of file, every task, and what is held out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from toolkit.artifacts import TensorSpec
from toolkit.distill.data import DataOptions, read_examples
from toolkit.distill.texts import Reader, shifted
from toolkit.distill.tokens import FolderTokenizer
from toolkit.errors import RecipeError

WORDS = ["[PAD]", "[MASK]", "[CLS]", "</s>", *(f"w{i}" for i in range(20))]
IDS = [TensorSpec(name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask")]
X = [TensorSpec("x", "float32", ("batch", 3))]


@pytest.fixture
def tokenizer(tmp_path):
    """A word a token, [CLS] in front of every text."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(WORDS[:4])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", 2)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return FolderTokenizer(tmp_path)


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def texts(path, count=20):
    return jsonl(
        path, [{"text": " ".join(f"w{(i + j) % 20}" for j in range(7))} for i in range(count)]
    )


def test_special_tokens_are_found_where_folders_say_them(tokenizer):
    assert [tokenizer.special(role) for role in ("eos", "mask", "pad", "bos")] == [3, 1, 0, None]
    assert tokenizer.specials == {0, 1, 2, 3}


def test_documents_become_whole_blocks_that_end_each_document(tokenizer, tmp_path):
    reader = Reader("causal-lm", tokenizer, ("input_ids", "attention_mask"), length=9)
    options = DataOptions(texts(tmp_path / "t.jsonl"), share=0.1, seed=3)
    found = read_examples(options, IDS, reader)
    assert found.unit == "tokens"
    assert len(found.train) == 18
    assert len(found.held) == 2
    ids = found.columns["input_ids"]
    assert ids.shape == (20, 9)
    assert (ids[:, 0] == 2).all()
    assert (ids[:, -1] == 3).all()
    assert torch.equal(found.columns["labels"], ids)
    # documents in common there are none
    assert not {*map(tuple, ids[found.train].tolist())} & {*map(tuple, ids[found.held].tolist())}
    batch = found.batch(torch.tensor([4, 2]))
    assert batch["index"].tolist() == [4, 2]
    assert found.size(batch) == 18


def test_a_row_for_each_document_is_padded_and_padding_has_no_label(tokenizer, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [{"text": "w1"}, {"text": "w1 w2 w3 w4 w5 w6"}])
    reader = Reader("causal-lm", tokenizer, ("input_ids",), length=5, packed=False)
    columns = read_examples(DataOptions(path, share=0), IDS[:1], reader).columns
    assert columns["input_ids"].tolist() == [[2, 5, 3, 0, 0], [2, 5, 6, 7, 8]]
    assert columns["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert columns["labels"].tolist() == [[2, 5, 3, -100, -100], [2, 5, 6, 7, 8]]


def test_masks_are_seeded_spare_special_tokens_and_label_what_was_there(tokenizer, tmp_path):
    path = texts(tmp_path / "t.jsonl", 400)
    made = []
    for seed in (0, 0, 1):
        reader = Reader("masked-lm", tokenizer, ("input_ids",), length=8, seed=seed)
        made.append(read_examples(DataOptions(path, share=0), IDS[:1], reader).columns)
    assert torch.equal(made[0]["input_ids"], made[1]["input_ids"])
    assert not torch.equal(made[0]["input_ids"], made[2]["input_ids"])
    plain = Reader("causal-lm", tokenizer, ("input_ids",), length=8)
    plain = Reader("masked-lm", tokenizer, ("input_ids",), length=8, masked=0.0).rows(
        [json.loads(line) for line in path.read_text().splitlines()]
    )
    ids, labels = made[0]["input_ids"], made[0]["labels"]
    chosen = labels != -100
    assert torch.equal(labels[chosen], plain["input_ids"][chosen])
    assert torch.equal(ids[~chosen], plain["input_ids"][~chosen])
    assert not chosen[plain["input_ids"] < 4].any()
    share = chosen[plain["input_ids"] >= 4].float().mean().item()
    assert share == pytest.approx(0.15, abs=0.02)
    assert (ids[chosen] == 1).float().mean().item() == pytest.approx(0.8, abs=0.05)


def test_pairs_give_the_decoder_the_target_moved_by_one(tokenizer, tmp_path):
    path = jsonl(
        tmp_path / "t.jsonl", [{"text": "w1", "target": "w2"}, {"text": "w3", "target": "w4 w5"}]
    )
    reader = Reader("seq2seq-lm", tokenizer, ("input_ids", "decoder_input_ids"), start=1)
    columns = read_examples(DataOptions(path, share=0), IDS, reader).columns
    assert columns["labels"].tolist() == [[2, 6, 3, -100], [2, 8, 9, 3]]
    assert columns["decoder_input_ids"].tolist() == [[1, 2, 6, 3], [1, 2, 8, 9]]
    assert shifted(columns["labels"], 1, 0).tolist() == columns["decoder_input_ids"].tolist()


def test_classes_may_be_missing_but_not_words(tokenizer, tmp_path):
    reader = Reader("classification", tokenizer, ("input_ids", "token_type_ids"))
    path = jsonl(tmp_path / "t.jsonl", [{"text": "w1", "pair": "w2", "label": 2}, {"text": "w3"}])
    columns = read_examples(DataOptions(path, share=0), IDS, reader).columns
    assert columns["labels"].tolist() == [2, -100]
    assert columns["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    path = jsonl(tmp_path / "u.jsonl", [{"text": "w1", "label": "good"}])
    with pytest.raises(RecipeError, match="record 1 has the label 'good', wanted the class's"):
        read_examples(DataOptions(path, share=0), IDS, reader)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "datasets"])
def test_arrays_of_every_kind_are_the_same_rows(tmp_path, kind):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(20, 3)).astype(np.float32), "labels": np.arange(20)}
    path = tmp_path / f"data.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "safetensors":
        save_file(arrays, path)
    else:
        Dataset.from_dict({k: v.tolist() for k, v in arrays.items()}).save_to_disk(path)
    found = read_examples(DataOptions(path, share=0.25), X, None)
    assert found.columns["x"].numpy() == pytest.approx(arrays["x"])
    assert found.columns["labels"].tolist() == list(range(20))
    assert sorted([*found.train.tolist(), *found.held.tolist()]) == list(range(20))
    assert len(found.held) == 5
    other = read_examples(DataOptions(path, share=0.25, seed=1), X, None)
    assert other.held.tolist() != found.held.tolist()
    assert other.split != found.split
    assert other.digest == found.digest  # the same rows: what teachers say of them stays
    changed = found.with_columns(labels=found.columns["labels"] + 1)
    assert changed.digest != found.digest


def test_a_datasets_folder_brings_its_own_held_out_part_and_ragged_columns(tokenizer, tmp_path):
    parts = {"train": [[4, 5], [6]], "validation": [[7, 8, 9]]}
    made = {name: Dataset.from_dict({"input_ids": ids}) for name, ids in parts.items()}
    DatasetDict(made).save_to_disk(tmp_path / "d")
    reader = Reader("causal-lm", tokenizer, ("input_ids",), length=8, packed=False)
    found = read_examples(DataOptions(tmp_path / "d"), IDS, reader)
    assert found.train.tolist() == [0, 1]
    assert found.held.tolist() == [2]
    assert found.columns["input_ids"].tolist() == [[4, 5, 3, 0], [6, 3, 0, 0], [7, 8, 9, 3]]
    assert found.columns["labels"][1].tolist() == [6, 3, -100, -100]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", "x", "a.csv is no data that can be read"),
        ("a.jsonl", '{"text": 1', "line 1: no JSON"),
        ("a.jsonl", "[1]", "line 1: found '.1.', wanted"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"txt": "w1 w2"}', "record 1 has no text under 'text'"),
        ("a.txt", "w1", None),
        ("a.npz", "no zip", "is no .npz of plain arrays"),
        ("lost.npz", None, "there is no data in"),
    ],
)
def test_mistakes(tokenizer, tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    reader = Reader("causal-lm", tokenizer, ("input_ids",), length=3)
    if text is None:
        assert len(read_examples(DataOptions(path, share=0), IDS, reader)) == 1
        return
    with pytest.raises(RecipeError, match=text):
        read_examples(DataOptions(path, share=0), IDS, reader)


def test_too_few_rows_missing_arrays_and_odd_parts_are_told(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 3), np.float32))
    with pytest.raises(RecipeError, match=r"gives 3 rows, too few to hold out a share of 0\.1"):
        read_examples(DataOptions(path), X, None)
    with pytest.raises(RecipeError, match="no array 'y', which the models take"):
        read_examples(DataOptions(path), [TensorSpec("y", "float32", (1,))], None)
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 3), np.float32), labels=np.zeros(3, np.int64))
    options = DataOptions(path, held_out=tmp_path / "b.npz")
    with pytest.raises(RecipeError, match="'labels' is only in one of training data and"):
        read_examples(options, X, None)
    with pytest.raises(RecipeError, match="the data are texts, and the student has no tokenizer"):
        read_examples(DataOptions(texts(tmp_path / "t.jsonl")), X, None)
