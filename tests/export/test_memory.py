"""Weights are let go of: a file that was read does not stay mapped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.sources import FactorySource, HuggingFaceSource

MAPS = Path("/proc/self/maps")
pytestmark = pytest.mark.skipif(not MAPS.exists(), reason="the system does not say what is mapped")


@pytest.fixture
def mixtral(tmp_path):
    """A source of whose weights most are experts'."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, vocab_size=50,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "mixtral")
    return HuggingFaceSource("mixtral", tmp_path / "mixtral")


def is_mapped(folder):
    return str(folder) in MAPS.read_text(encoding="utf-8")


def test_a_loaded_model_of_experts_leaves_its_file(mixtral):
    model = mixtral.load()
    assert not is_mapped(mixtral.folder)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_nothing_of_a_model_stays_after_its_export(mixtral, tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.sources.huggingface.leave_file", lambda model: None)
    shapes = {"batch": DimRange(1, 2, 4), "sequence": DimRange(1, 4, 16)}
    export_source(mixtral, shapes, ExportOptions(), tmp_path / "model.onnx")
    assert not is_mapped(mixtral.folder)


def test_a_module_that_its_factory_keeps_stays_whole(tmp_path, monkeypatch):
    kept = torch.nn.Linear(3, 2)
    wanted = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    save_file(kept.state_dict(), tmp_path / "weights.safetensors")
    source = FactorySource(
        "kept", "unused:unused", tmp_path / "weights.safetensors",
        (TensorSpec("input", "float32", ("batch", 3)),),
    )  # fmt: skip
    monkeypatch.setattr(FactorySource, "_build", lambda self: kept)
    export_source(source, {"batch": DimRange(1, 2, 4)}, ExportOptions(), tmp_path / "model.onnx")
    assert all(torch.equal(kept.state_dict()[name], wanted[name]) for name in wanted)
