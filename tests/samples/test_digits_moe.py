"""The sparse digits sample: its training, what it counts, and its graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch


def test_training_twice_gives_the_same_weights(recipes: Path) -> None:
    import digits_moe

    seen, _ = digits_moe.split(0)
    first, again = (
        digits_moe.train(seen, 1, balanced=True, epochs=1).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_losses_spread_the_choices_over_experts(recipes: Path) -> None:
    import digits_moe

    seen, held_out = digits_moe.split(0)
    models = [digits_moe.train(seen, 0, balanced=each, epochs=10) for each in (True, False)]
    shares = digits_moe.usage(models[0], held_out)
    assert torch.allclose(shares.sum(1), torch.ones(10, dtype=torch.float64))
    balanced, alone = (digits_moe.busy(model, held_out)[1] for model in models)
    assert balanced < alone


def test_the_graph_predicts_what_pytorch_predicts(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import digits_moe

    for name in ("digits_moe.yaml", "digits_moe_models.py"):
        shutil.copy(recipes / name, tmp_path / name)
    monkeypatch.setattr(digits_moe, "RECIPES", tmp_path)
    monkeypatch.setattr(digits_moe, "WEIGHTS", tmp_path / "weights" / "digits")
    monkeypatch.setattr(digits_moe, "BUNDLE", tmp_path / "bundle")
    seen, held_out = digits_moe.split(0)
    model = digits_moe.train(seen, 0, balanced=True, epochs=5)
    graph = digits_moe.export(model)
    nodes = onnx.load(graph, load_external_data=False).graph.node
    assert sum(node.op_type == "If" for node in nodes) == 8
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    image = held_out.image[:64]
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        wanted = model(image).numpy()
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
