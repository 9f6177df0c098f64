"""Hugging Face folders: tasks, pooling, and refusal of what would be silently wrong."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.workshop import write_huggingface
from toolkit.artifacts import DimRange
from toolkit.errors import CheckpointError, RecipeError
from toolkit.sources import HuggingFaceSource
from toolkit.sources.heads import Pooling
from toolkit.sources.huggingface import read_pooling


@pytest.fixture
def bert(tmp_path):
    return write_huggingface(tmp_path / "bert", "bert")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("kind", "head", "outputs"),
    [
        ("bert", "sequence-classification", ("logits",)),
        ("roberta", "masked-lm", ("logits",)),
        ("llama", "causal-lm", ("logits",)),
        ("gpt2", "causal-lm", ("logits",)),
        ("sentence", "sentence-embedding", ("sentence_embedding", "last_hidden_state")),
    ],
)
def test_architecture_decides_the_task(tmp_path, kind, head, outputs):
    source = HuggingFaceSource(kind, write_huggingface(tmp_path / kind, kind))
    assert (source.head, source.outputs) == (head, outputs)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_an_encoder_decoder_is_two_graphs_that_say_together_what_it_says(tmp_path, kind):
    folder = write_huggingface(tmp_path / kind, kind)
    encoder, decoder = (HuggingFaceSource(kind, folder, part=p) for p in ("encoder", "decoder"))
    ids = torch.tensor([[5, 9, 3, 7], [8, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    new = torch.tensor([[0, 4, 6], [0, 11, 2]])
    whole = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    with torch.no_grad():
        cross = encoder.load()(input_ids=ids, attention_mask=mask)
        given = {"attention_mask": mask, **dict(zip(encoder.outputs, cross, strict=True))}
        specs = {spec.name: spec for spec in decoder.inputs}
        assert all(tuple(given[n].shape[1::2]) == specs[n].shape[1::2] for n in encoder.outputs)
        past = {
            name: torch.zeros(2, spec.shape[1], 0, spec.shape[3])
            for name, spec in specs.items()
            if name.startswith("past_key_values.")
        }
        found = []
        for step in range(3):
            logits, *present = decoder.load()(
                **given, **past, decoder_input_ids=new[:, step : step + 1]
            )
            past = dict(zip(past, present, strict=True))
            found.append(logits)
        wanted = whole(input_ids=ids, attention_mask=mask, decoder_input_ids=new, use_cache=False)
    torch.testing.assert_close(torch.cat(found, 1), wanted.logits, rtol=1e-4, atol=1e-5)


def test_inputs_carry_the_vocabulary(bert):
    ids, mask, types = HuggingFaceSource("bert", bert).inputs
    assert (ids.name, ids.high) == ("input_ids", 97)
    assert (mask.name, mask.role) == ("attention_mask", "mask")
    assert (types.name, types.high) == ("token_type_ids", 2)


def test_unknown_architecture_lists_the_tasks(bert):
    edit_config(bert, architectures=["BertForQuestionAnswering"])
    with pytest.raises(
        CheckpointError, match="'BertForQuestionAnswering' has no known head"
    ) as found:
        _ = HuggingFaceSource("bert", bert).head
    assert "masked-lm" in found.value.hint


def test_unknown_model_type_is_said(bert):
    edit_config(bert, model_type="mystery")
    with pytest.raises(CheckpointError, match=r"config\.json is not one transformers can read"):
        _ = HuggingFaceSource("bert", bert).config


def test_missing_weights_are_not_filled_at_random(bert):
    path = bert / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if not n.startswith("classifier")}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"2 weights are missing, first 'classifier\.bias'"):
        HuggingFaceSource("bert", bert).load()


def test_a_head_that_was_never_trained_is_refused(bert):
    with pytest.raises(CheckpointError, match=r"weights are missing, first 'cls\.predictions"):
        HuggingFaceSource("bert", bert, task="masked-lm").load()


def test_weights_of_another_width_are_refused(bert):
    edit_config(bert, num_labels=5, id2label={str(i): str(i) for i in range(5)})
    with pytest.raises(CheckpointError, match="classifier"):
        HuggingFaceSource("bert", bert).load()


@pytest.mark.parametrize(("kind", "longest"), [("bert", 40), ("roberta", 38), ("llama", 40)])
def test_sequence_past_the_positions_is_refused(tmp_path, kind, longest):
    source = HuggingFaceSource(kind, write_huggingface(tmp_path / kind, kind))
    assert source.max_sequence == longest
    good = {"batch": DimRange(1, 1, 1), "sequence": DimRange(1, 1, longest)}
    source.check_shapes(good)
    with pytest.raises(RecipeError, match=f"reaches {longest + 1}, but .* has {longest} positions"):
        source.check_shapes({**good, "sequence": DimRange(1, 1, longest + 1)})


@pytest.mark.parametrize(
    ("pooling", "normalise", "expected"),
    [
        (None, False, Pooling("mean", False)),
        ("pooling_mode_cls_token", True, Pooling("cls", True)),
        ("pooling_mode_max_tokens", False, Pooling("max", False)),
    ],
)
def test_pooling_is_the_folders_own(tmp_path, pooling, normalise, expected):
    if pooling:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    if normalise:
        modules = [{"type": "sentence_transformers.models.Normalize"}]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert read_pooling(tmp_path) == expected


def test_unknown_pooling_is_refused(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    with pytest.raises(CheckpointError, match="pooling pooling_mode_lasttoken is not one of"):
        read_pooling(tmp_path)


def test_mean_pooling_ignores_padding(tmp_path):
    source = HuggingFaceSource("s", write_huggingface(tmp_path / "s", "sentence"))
    module = source.load("float64")
    ids = torch.tensor([[5, 6, 7, 0]])
    types = torch.zeros_like(ids)
    padded = module(
        input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 0]]), token_type_ids=types
    )[0]
    short = module(
        input_ids=ids[:, :3], attention_mask=torch.ones(1, 3, dtype=torch.int64),
        token_type_ids=types[:, :3],
    )[0]  # fmt: skip
    torch.testing.assert_close(padded, short)


def test_cache_is_for_causal_models_only(bert):
    with pytest.raises(RecipeError, match="'bert' is to have a cache, but its task is sequence"):
        _ = HuggingFaceSource("bert", bert, cache=True).inputs


def test_cached_inputs_follow_the_configuration(tmp_path):
    source = HuggingFaceSource("l", write_huggingface(tmp_path / "l", "llama"), cache=True)
    assert [spec.name for spec in source.inputs][:4] == [
        "input_ids",
        "attention_mask",
        "position_ids",
        "past_key_values.0.key",
    ]
    assert source.inputs[1].shape == ("batch", "past_sequence + sequence")
    assert source.inputs[3].shape == ("batch", 2, "past_sequence", 8)
    assert source.outputs[-1] == "present.1.value"
    assert source.default_shapes()["past_sequence"] == DimRange(0, 20, 20)
    long = {**source.default_shapes(), "sequence": DimRange(1, 1, 21)}
    with pytest.raises(RecipeError, match="past_sequence \\+ sequence reaches 41"):
        source.check_shapes(long)
