"""Exported sparse models in ONNX Runtime, by the bodies of their functions, against float64."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.moe_models import CAUSAL, VOCABULARY, decode, tiny
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.nn import SparseMoE
from toolkit.runtime import OrtRunner, TorchRunner
from toolkit.sources import FactorySource, HuggingFaceSource

# One of each kind of router and layout; the others take the same code.
QUICK = ("mixtral", "deepseek_v2", "gpt_oss", "jetmoe")


def close(found, wanted):
    return np.abs(found - wanted).max() <= 2e-6 * np.abs(wanted).max()


def operators(path):
    model = onnx.load(path, load_external_data=False)
    return Counter(node.op_type for node in model.graph.node if node.domain == "toolkit")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CAUSAL]
)
def test_graph_equals_pytorch_at_every_shape_and_step(moe_graph, name):
    model = moe_graph(name)
    rng = np.random.default_rng(0)
    source = HuggingFaceSource(name, model.path.parent / name)
    with OrtRunner(model.path) as ort, TorchRunner(source, "float64") as pytorch:
        for batch, sequence, steps in [(1, 1, 0), (2, 8, 0), (1, 128, 0), (16, 1, 0), (3, 13, 8)]:
            ids = rng.integers(3, VOCABULARY, (batch, sequence))
            wanted = pytorch({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
            assert close(decode(ort, model, ids, steps), wanted)


def test_biased_experts_are_an_operator_of_their_own(moe_graph):
    assert operators(moe_graph("mixtral").path) == {"ExpertLinear": 4}
    assert operators(moe_graph("gpt_oss").path) == {"ExpertLinearBias": 4}


def test_attention_experts_are_the_same_operator(moe_graph):
    assert operators(moe_graph("jetmoe").path) == {"ExpertLinear": 8}


class Translation(nn.Module):
    """An encoder and decoder as the toolkit calls modules."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return (self.model(**inputs, use_cache=False).logits,)


class TranslationSource:
    """A tiny Switch Transformer as a source."""

    name, description, files, outputs = "switch", "", (), ("logits",)
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "source"), low=3, high=VOCABULARY),
        TensorSpec("attention_mask", "int64", ("batch", "source"), low=0, high=2, role="mask"),
        TensorSpec("decoder_input_ids", "int64", ("batch", "target"), low=3, high=VOCABULARY),
    )

    def load(self, dtype="float32"):
        return Translation(tiny("switch_transformers")).to(getattr(torch, dtype)).eval()


@pytest.mark.slow
def test_switch_transformer_drops_the_tokens_that_find_no_room(tmp_path):
    source = TranslationSource()
    spans = {name: DimRange(1, 5, 64) for name in ("source", "target")}
    shapes = {"batch": DimRange(1, 2, 8), **spans}
    model = export_source(source, shapes, ExportOptions(), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    with OrtRunner(model.path) as ort, TorchRunner(source, "float64") as pytorch:
        for rows, length, target in [(1, 1, 1), (2, 8, 3), (3, 64, 40)]:
            feeds = {
                "input_ids": rng.integers(3, VOCABULARY, (rows, length)),
                "attention_mask": np.ones((rows, length), np.int64),
                "decoder_input_ids": rng.integers(3, VOCABULARY, (rows, target)),
            }
            assert close(ort(feeds)["logits"], pytorch(feeds)["logits"])


CODE = """
from torch.nn import functional
from toolkit.nn import SparseMoE

def make(gated):
    return SparseMoE(6, 8, experts=5, k=2, gated=gated, activation=functional.gelu)
"""


@pytest.mark.parametrize("gated", [True, False])
def test_our_own_layer_leaves_as_the_same_operator(tmp_path, gated):
    (tmp_path / "own.py").write_text(CODE)
    torch.manual_seed(0)
    layer = SparseMoE(6, 8, experts=5, k=2, gated=gated)
    with torch.no_grad():
        layer.gate[1:3].normal_()  # the others tie at 0
    save_file(layer.state_dict(), tmp_path / "own.safetensors")
    x = TensorSpec("x", "float32", ("batch", "sequence", 6))
    source = FactorySource(
        "own", "own:make", tmp_path / "own.safetensors", (x,),
        kwargs={"gated": gated}, search=tmp_path,
    )  # fmt: skip
    shapes = {"batch": DimRange(1, 2, 9), "sequence": DimRange(1, 3, 40)}
    model = export_source(source, shapes, ExportOptions(), tmp_path / "m.onnx")
    assert operators(model.path) == {"ExpertLinearBias": 2}
    rng = np.random.default_rng(0)
    with OrtRunner(model.path) as ort, TorchRunner(source, "float64") as pytorch:
        for shape in [(1, 1), (2, 3), (9, 40)]:
            feeds = {"x": rng.normal(size=(*shape, 6)).astype(np.float32)}
            assert close(ort(feeds)["logits"], pytorch(feeds)["logits"])
