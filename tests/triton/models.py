"""Bundles of several kinds, exported from small models by the real pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.moe_models import write_tiny
from tests.workshop import write_huggingface
from toolkit.bundle import Manifest, TensorRecord, hash_file
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

__all__ = ["LABELS", "WORDS", "by_hand", "decoder", "digits", "encoder", "experts"]

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LABELS = ("bad", "fair", "good")
WORDS = ("[PAD]", "[UNK]", "[CLS]", *(f"w{number}" for number in range(3, 97)))

ENCODER = """
model: {checkpoint: bert}
shapes: {batch: [1, 2, 4], sequence: [1, 5, 12]}
parity: {cases: 1}
"""
EXPERTS = """
model: {checkpoint: mixtral, cache: true}
shapes: {batch: [1, 2, 4], sequence: [1, 3, 8], past_sequence: [0, 4, 16]}
export: {experts: conditionals}
parity: {cases: 1}
"""
DECODER = """
model: {checkpoint: llama, cache: true}
shapes: {batch: [1, 2, 4], sequence: [1, 3, 8], past_sequence: [0, 4, 30]}
parity: {cases: 1}
"""


def bundle_of(folder: Path, text: str, name: str) -> Path:
    (folder / "recipe.yaml").write_text(text)
    recipe = load_recipe(folder / "recipe.yaml", allow_code=True)
    export_recipe(recipe, folder, folder / name)
    return folder / name


def digits(folder: Path) -> Path:
    """The demo's ensemble, trained for a moment."""
    pytest.importorskip("sklearn", reason="the samples need scikit-learn")
    weights = folder / "weights" / "digits"
    train = [sys.executable, SAMPLES / "digits_train.py", "--epochs", "2", "--out", weights]
    subprocess.run([str(word) for word in train], check=True, capture_output=True)
    shutil.copy(SAMPLES / "recipes" / "digits_models.py", folder)
    text = (SAMPLES / "recipes" / "digits_ensemble.yaml").read_text()
    return bundle_of(folder, text.replace("target: tensorrt-rtx", "parity: {cases: 1}"), "digits")


def encoder(folder: Path) -> Path:
    """A classifier of texts with words and labels of its own."""
    names = dict(enumerate(LABELS))
    write_huggingface(folder / "bert", "bert", id2label=names)
    write_tokenizer(folder / "bert")
    return bundle_of(folder, ENCODER, "encoder")


def write_tokenizer(folder: Path) -> None:
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", words["[CLS]"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def by_hand(folder: Path, output: str) -> Path:
    """A bundle without an export: every token is followed by itself, or texts by their lengths."""
    folder.mkdir(parents=True)
    info, tokens = onnx.helper.make_tensor_value_info, ["batch", "sequence"]
    nodes, shape = {
        "logits": (
            [onnx.helper.make_node("OneHot", ["input_ids", "depth", "ends"], ["logits"])],
            [*tokens, len(WORDS)],
        ),
        "sentence_embedding": (
            [
                onnx.helper.make_node("Cast", ["attention_mask"], ["ones"], to=1),
                onnx.helper.make_node("ReduceSum", ["ones", "axis"], ["sentence_embedding"]),
            ],
            ["batch", 1],
        ),
    }[output]
    constants = {
        "depth": np.array(len(WORDS)),
        "ends": np.array([0, 1], np.float32),
        "axis": np.array([1]),
    }
    graph = onnx.helper.make_graph(
        nodes,
        "by_hand",
        [info(name, 7, tokens) for name in ("input_ids", "attention_mask")],
        [info(output, 1, shape)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx"
    )
    write_tokenizer(folder)
    limits = {"input_ids": (len(WORDS), "values"), "attention_mask": (2, "mask")}
    Manifest(
        root="..", verdict="passed", target="onnx", opset=20, seed=0, engine=None, versions={},
        inputs=tuple(
            TensorRecord(name=name, dtype="int64", shape=tokens, low=0, high=high, role=role)
            for name, (high, role) in limits.items()
        ),
        outputs=(TensorRecord(name=output, dtype="float32", shape=shape),),
        shapes={"batch": (1, 2, 4), "sequence": (1, 4, 9)}, sources=(),
        files={name: hash_file(folder / name) for name in ("model.onnx", "tokenizer.json")},
    ).write(folder / "manifest.json")  # fmt: skip
    return folder


def experts(folder: Path) -> Path:
    """A decoder with caches, whose experts are conditionals."""
    write_tiny(folder / "mixtral", "mixtral")
    return bundle_of(folder, EXPERTS, "experts")


def decoder(folder: Path) -> Path:
    """A decoder with caches that never ends a text by itself."""
    write_huggingface(folder / "llama", "llama")
    path = folder / "llama" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": None}))
    (folder / "llama" / "generation_config.json").unlink(missing_ok=True)
    return bundle_of(folder, DECODER, "decoder")
