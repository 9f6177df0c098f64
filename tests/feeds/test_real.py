"""Real inputs: arrays and texts become cases, and what does not fit is refused by its text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from toolkit.artifacts import DimRange, TensorSpec
from toolkit.errors import RecipeError
from toolkit.feeds import real_cases

IDS = TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=50)
MASK = TensorSpec("mask", "int64", ("batch", "sequence"), low=0, high=2, role="mask")
IMAGE = TensorSpec("x", "float32", ("batch", 3))
SHAPES = {"batch": DimRange(1, 2, 4), "sequence": DimRange(1, 3, 5)}


def lines(folder, *values):
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps(value) for value in values))
    return path


def test_arrays_are_cut_into_batches_of_the_usual_size(tmp_path):
    np.savez(tmp_path / "real.npz", x=np.arange(15.0).reshape(5, 3))
    found = real_cases(tmp_path / "real.npz", (IMAGE,), SHAPES, None)
    assert [case.kind for case in found] == ["real"] * 3
    assert [case.dims["batch"] for case in found] == [2, 2, 1]
    assert found[0].name == "real 0: batch=2"
    assert found[2].feeds()["x"].tolist() == [[12, 13, 14]]
    assert found[0].feeds()["x"].dtype == np.float32


def test_token_ids_are_cut_and_padded_on_the_right(tmp_path):
    path = lines(tmp_path, {"input_ids": [1, 2]}, [3, 4, 5, 6, 7, 8, 9], {"input_ids": [5]})
    first, second = real_cases(path, (IDS, MASK), SHAPES, None)
    assert first.feeds()["input_ids"].tolist() == [[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]]
    assert first.feeds()["mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert second.dims == {"batch": 1, "sequence": 1}


def test_texts_go_through_the_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 7, "b": 8, "?": 0}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = lines(tmp_path, "a b", {"text": "b"})
    (case,) = real_cases(path, (IDS, MASK), SHAPES, tmp_path / "tokenizer.json")
    assert case.feeds()["input_ids"].tolist() == [[7, 8], [8, 0]]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": np.zeros((1, 3))}, "has no array 'x'"),
        ({"x": np.zeros((1, 4))}, r"has shape \[1, 4\], wanted float32\[batch, 3\]"),
        ({"x": np.zeros(3)}, r"has shape"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, text):
    np.savez(tmp_path / "real.npz", **arrays)
    with pytest.raises(RecipeError, match=text):
        real_cases(tmp_path / "real.npz", (IMAGE,), SHAPES, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"input_ids": []}, "line 1 of texts.jsonl holds neither text nor input_ids"),
        ({"words": "a"}, "line 1 of texts.jsonl holds neither text nor input_ids"),
        ("a b", "holds texts, but no model has a tokenizer.json"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, value, text):
    with pytest.raises(RecipeError, match=text):
        real_cases(lines(tmp_path, value), (IDS, MASK), SHAPES, None)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "real.npz").write_text("no arrays")
    with pytest.raises(RecipeError, match=r"real\.npz is no \.npz of plain arrays"):
        real_cases(tmp_path / "real.npz", (IMAGE,), SHAPES, None)
    with pytest.raises(RecipeError, match=r"real\.csv is neither \.npz nor \.jsonl"):
        real_cases(tmp_path / "real.csv", (IMAGE,), SHAPES, None)
    with pytest.raises(RecipeError, match="holds texts, but the model takes no input_ids"):
        real_cases(lines(tmp_path, "a"), (IMAGE,), SHAPES, None)
