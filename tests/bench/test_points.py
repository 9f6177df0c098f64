"""Points come from the ranges, or are what was asked for and can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.artifacts import DimRange, TensorSpec
from toolkit.bench import Subject, parse_shape, points_of
from toolkit.bench.subject import job_of
from toolkit.errors import ToolkitError

RANGES = {
    "batch": DimRange(1, 4, 16), "sequence": DimRange(1, 32, 128), "past": DimRange(0, 64, 256),
}  # fmt: skip


def encoder() -> Subject:
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=90),
        TensorSpec("attention_mask", "int64", ("batch", "sequence"), role="mask"),
    )
    shapes = {name: RANGES[name] for name in ("batch", "sequence")}
    return Subject("encoder", Path("model.onnx"), inputs, ("logits",), shapes)


def decoder() -> Subject:
    cache = ("batch", 2, "past", 8)
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=90),
        TensorSpec("attention_mask", "int64", ("batch", "past + sequence"), role="mask"),
        TensorSpec("past_key_values.0.key", "float32", cache),
        TensorSpec("past_key_values.0.value", "float32", cache),
    )
    outputs = ("logits", "present.0.key", "present.0.value")
    return Subject("decoder", Path("model.onnx"), inputs, outputs, RANGES)


def test_without_being_asked_one_row_the_usual_and_the_largest_size():
    found = [(p.kind, p.rows, p.dims["sequence"]) for p in points_of(encoder(), [])]
    assert found == [("run", 1, 32), ("run", 4, 32), ("run", 16, 128)]


def test_a_decoder_reads_a_text_and_then_adds_a_token():
    found = points_of(decoder(), [])
    assert [p.title for p in found] == [
        "prefill: batch 1, sequence 32, past 0", "decode: batch 1, sequence 1, past 64",
        "prefill: batch 4, sequence 32, past 0", "decode: batch 4, sequence 1, past 64",
    ]  # fmt: skip
    assert [p.tokens for p in found] == [32, 1, 128, 4]
    feeds = job_of(decoder(), found[3].dims, 0).feeds
    assert feeds["past_key_values.0.key"].shape == (4, 2, 64, 8)
    assert feeds["attention_mask"].shape == (4, 65)
    assert feeds["attention_mask"].all()


def test_what_is_asked_for_is_completed_by_usual_sizes():
    (point,) = points_of(decoder(), [parse_shape("batch=2, past=7")])
    assert point.title == "decode: batch 2, sequence 32, past 7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch", "wanted NAME=SIZE"),
        ("batch=1,batch=2", "wanted NAME=SIZE"),
        ("batch=x", "wanted NAME=SIZE"),
        ("batch=17", "batch is 17, wanted 1 to 16"),
        ("rows=1", "a size for 'rows', which no input has"),
    ],
)
def test_a_size_that_cannot_be_is_refused(text, said):
    with pytest.raises(ToolkitError, match=said):
        points_of(encoder(), [parse_shape(text)])


def test_dimensions_without_a_range_must_be_given_a_size():
    bare = Subject("bare", Path("x.onnx"), encoder().inputs, ("logits",), {})
    (point,) = points_of(bare, [{"batch": 2}])
    with pytest.raises(ToolkitError, match="without a size: sequence") as found:
        job_of(bare, point.dims, 0)
    assert found.value.hint == "--shape batch=SIZE,sequence=SIZE"
