"""Every architecture, every lowering: PyTorch's numbers, and what NVIDIA's builder takes."""

from __future__ import annotations

import numpy as np
import pytest

import graphs
from tests.graphs.test_rtx import plan_bytes
from tests.moe_models import CAUSAL, VOCABULARY, decode
from toolkit.runtime import OrtRunner, TorchRunner
from toolkit.sources import HuggingFaceSource

LOWERINGS = {
    "conditionals": graphs.ExpertsToConditionals,
    "rows": graphs.ExpertsToRows,
    "dense": graphs.ExpertsToDense,
    "batched": graphs.ExpertsToBatched,
    "native": graphs.ExpertsToNative,
}
SHAPES = [(1, 1), (1, 2), (2, 8), (3, 5), (4, 33), (1, 128), (16, 1)]
# PhiMoE's router takes the second of its experts from logits near its own: no operator of ours.
UNFOUND = {"phimoe"}


@pytest.fixture
def lowered(moe_graph, tmp_path):
    """A model's graph in every lowering, by name of the lowering."""

    def make(name):
        model = moe_graph(name)
        gated = tmp_path / "gated.onnx"
        (found,) = graphs.rewrite(model.path, [graphs.FindGating()], gated)
        assert bool(found.sites) == (name not in UNFOUND), found
        files = {}
        for way, step in LOWERINGS.items():
            files[way] = tmp_path / f"{way}.onnx"
            (report,) = graphs.rewrite(gated, [step()], files[way])
            assert report.sites
            left = {layer.lowering for layer in graphs.expert_layers(files[way])}
            assert left == {f"experts_to_{way}"}
        return model, files

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_every_lowering_equals_pytorch(lowered, name):
    model, files = lowered(name)
    rng = np.random.default_rng(1)
    cases = [(rng.integers(3, VOCABULARY, shape), 0) for shape in SHAPES]
    cases.append((rng.integers(3, VOCABULARY, (2, 36)), 32))
    cases.append((np.full((2, 16), 7), 0))  # all tokens to the same experts
    source = HuggingFaceSource(name, model.path.parent / name)
    with TorchRunner(source, "float64") as pytorch:
        wanted = [
            pytorch({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
            for ids, _ in cases
        ]
    for way, path in files.items():
        with OrtRunner(path) as ort:
            for (ids, steps), truth in zip(cases, wanted, strict=True):
                error = np.abs(decode(ort, model, ids, steps) - truth).max()
                assert error <= 1e-5 * np.abs(truth).max(), (way, ids.shape, error)


@pytest.mark.slow
@pytest.mark.rtx
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("way", ["conditionals", "rows"])
def test_tensorrt_rtx_builds_them(lowered, name, way):
    _, files = lowered(name)
    assert plan_bytes(files[way]) > 0
