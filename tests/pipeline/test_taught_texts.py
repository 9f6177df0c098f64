"""Sequence level through a recipe is training on the teacher's beams, whoever searches them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.workshop import write_huggingface, write_recipe
from toolkit.distill import sentence_bleu
from toolkit.pipeline import distil, plan_distillation
from toolkit.recipe import load_recipe

RECIPE = """
model:
  distill:
    student: {{checkpoint: a}}
    teachers: {{checkpoint: b}}
    data: {{path: {data}, share: 0}}
    objective: {objective}
    training: {{steps: 8, batch: 4, device: cpu}}
"""
BEAMS, LENGTH, END = 3, 6, 1


def trained(folder, data, objective):
    recipe = load_recipe(write_recipe(folder, RECIPE.format(data=data, objective=objective)))
    what = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
    out = folder / f"made {data} {len(list(folder.iterdir()))}"
    distil(what, out, work=folder / "work")
    return load_file(out / "model.safetensors")


def write_arrays(path, records):
    """The same as arrays, which nobody closes with a token of its own."""
    ids = np.array([record["input_ids"] for record in records])
    labels = np.full((len(records), LENGTH), -100)
    for row, record in zip(labels, records, strict=True):
        row[: len(record["labels"])] = record["labels"]
    given = np.roll(labels, 1, axis=1)
    given[:, 0] = 0
    given[given < 0] = 0
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids), labels=labels,
             decoder_input_ids=given)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, "w2"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, seed in (("a", 1), ("b", 2)):
        options = {"initializer_factor": 2.0, "tie_word_embeddings": False, "dropout_rate": 0.0}
        write_huggingface(folder / name, "t5", seed, **options)
        made.save(str(folder / name / "tokenizer.json"))
        told = json.dumps({"eos_token": f"w{END}", "pad_token": "w0"})
        (folder / name / "tokenizer_config.json").write_text(told)
    return folder


def test_a_student_of_texts_is_one_of_the_teachers_own_beams(folder):
    rng = np.random.default_rng(0)
    records = [
        {"input_ids": [*rng.integers(3, 97, 5).tolist(), END],
         "labels": [*rng.integers(3, 97, 4).tolist(), END]}
        for _ in range(12)
    ]  # fmt: skip
    write_arrays(folder / "data.npz", records)
    teacher = hf.AutoModelForSeq2SeqLM.from_pretrained(folder / "b", dtype="float32").eval()
    wanted: dict[str, list] = {"sequence": [], "interpolation": []}
    for record in records:
        with torch.no_grad():
            found = teacher.generate(
                torch.tensor([record["input_ids"]]), num_beams=BEAMS, num_return_sequences=BEAMS,
                max_new_tokens=LENGTH, do_sample=False, early_stopping=False, use_cache=False,
                eos_token_id=END, pad_token_id=0, decoder_start_token_id=0,
            )[:, 1:].tolist()  # fmt: skip
        texts = [text[: text.index(END) + 1] if END in text else text for text in found]
        said = [[token for token in text if token != END] for text in texts]
        close = [sentence_bleu(text, record["labels"][:-1]) for text in said]
        for kind, place in (("sequence", 0), ("interpolation", int(np.argmax(close)))):
            wanted[kind].append({**record, "labels": texts[place]})
    objective = f"beams: {BEAMS}, new_tokens: {LENGTH}"
    weights = {}
    for kind, taught in wanted.items():
        write_arrays(folder / f"{kind}.npz", taught)
        weights[kind] = trained(folder, "data.npz", f"{{level: {kind}, {objective}}}")
        direct = trained(folder, f"{kind}.npz", "{hard: 1}")
        for name, value in weights[kind].items():
            torch.testing.assert_close(value, direct[name], rtol=1e-5, atol=1e-6)
    alone = trained(folder, "data.npz", "{hard: 1}")
    for other in (alone, weights["interpolation"]):
        assert any(not torch.equal(v, other[n]) for n, v in weights["sequence"].items())
