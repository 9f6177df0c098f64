"""Layers of experts in graphs made elsewhere: found, the numbers stay, near misses say why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphs
from graphs.moe.slabs import Stacked
from tests.graphs.foreign_moe import WIDTH, export, export_gathered
from tests.moe_models import VOCABULARY, tiny

SCRIPTED = ("einsum", "batched", "stacked", "loop", "columns", "dispatched")
TRACED = ("einsum", "batched", "dispatched")
GATHERED = ("mixtral", "gpt_oss")
EVERY = [*((name, "script") for name in SCRIPTED), *((name, "dynamo") for name in TRACED),
         *((name, "gathered") for name in GATHERED)]  # fmt: skip
FIND = (graphs.FindMoeBlocks(), graphs.FindGating())
LOWERED = {
    "conditionals": (*FIND, graphs.ExpertsToConditionals()),
    "rows": (*FIND, graphs.ExpertsToRows()),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Every layer as PyTorch exports it."""
    folder = tmp_path_factory.mktemp("foreign")
    files = {}
    for name, how in EVERY:
        if how == "gathered":
            model = tiny(name, num_hidden_layers=1)
            files[name, how] = export_gathered(folder / f"{name}.onnx", model)
        else:
            files[name, how] = export(folder, name, dynamo=how == "dynamo")
    return files


def run(path: Path, size: tuple[int, int]) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # exporters leave initializers that nothing reads
    session = ort.InferenceSession(str(path), options)
    random, (given,) = np.random.default_rng(0), session.get_inputs()
    if given.name == "input_ids":
        return session.run(None, {"input_ids": random.integers(VOCABULARY, size=size)})[0]
    kind = np.float16 if "16" in given.type else np.float32
    return session.run(None, {"x": random.normal(size=(*size, WIDTH)).astype(kind)})[0]


def assert_same(found: Path, wanted: Path, bound: float = 1e-5) -> None:
    for size in ((1, 1), (2, 5), (3, 17)):
        expected = run(wanted, size)
        np.testing.assert_allclose(
            run(found, size), expected, rtol=0, atol=bound * abs(expected).max()
        )


def stored(path: Path) -> int:
    data = path.with_name(path.name + ".data")
    weights = onnx.load(path, load_external_data=False).graph.initializer
    inside = sum(len(w.raw_data) for w in weights)
    return inside + (data.stat().st_size if data.exists() else 0)


def kinds(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.parametrize(("name", "how"), EVERY)
def test_layers_are_found_and_the_numbers_stay(foreign, tmp_path, name, how):
    out = tmp_path / "found.onnx"
    found, gating = graphs.rewrite(foreign[name, how], FIND, out)
    layers = 2 if name == "columns" else 1
    assert not found.near_misses
    assert not gating.near_misses
    assert len(gating.sites) == layers
    left = kinds(out)
    linears = 3 if name in {"stacked", "loop", "dispatched"} else 2
    assert left["ExpertLinear"] + left["ExpertLinearBias"] == layers * linears
    assert not left.keys() & {"TopK", "NonZero", "Einsum", "OneHot", "ScatterElements"}
    assert_same(out, foreign[name, how])


@pytest.mark.parametrize("way", sorted(LOWERED))
@pytest.mark.parametrize(("name", "how"), EVERY)
def test_what_is_found_can_be_lowered(foreign, tmp_path, name, how, way):
    out = tmp_path / "lowered.onnx"
    reports = graphs.rewrite(foreign[name, how], LOWERED[way], out)
    assert len(reports[2].sites) == (2 if name == "columns" else 1)
    assert not reports[2].near_misses
    left = kinds(out)
    assert not left.keys() & {"ExpertLinear", "ExpertLinearBias", "TopK", "NonZero"}
    assert (left["If"] > 0) == (way == "conditionals")
    assert_same(out, foreign[name, how])


@pytest.mark.parametrize(("name", "how"), EVERY)
def test_weights_are_stored_once(foreign, tmp_path, name, how):
    out = tmp_path / "out.onnx"
    before = stored(foreign[name, how])
    for steps in (FIND, LOWERED["conditionals"]):
        graphs.rewrite(foreign[name, how], steps, out)
        assert stored(out) <= before + 2048


def test_matrices_of_experts_are_not_stacked_to_be_taken_apart(foreign, tmp_path, monkeypatch):
    def stack(self):
        raise AssertionError(f"{self.name} was read as a whole")

    monkeypatch.setattr(Stacked, "_stack", stack)
    graphs.rewrite(foreign["loop", "script"], LOWERED["rows"], tmp_path / "rows.onnx")
    with pytest.raises(AssertionError, match="read as a whole"):
        graphs.rewrite(foreign["loop", "script"], FIND, tmp_path / "found.onnx")


def test_half_precision(tmp_path):
    plain = export(tmp_path, "batched", dynamo=False, half=True)
    found, _ = graphs.rewrite(plain, LOWERED["rows"][:2], tmp_path / "found.onnx")
    assert len(found.sites) == 1
    assert_same(tmp_path / "found.onnx", plain, 1e-2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("activations", "its experts have different activations: Relu and Tanh"),
        ("widths", "its experts have weights of other shapes: "),
        ("leaking", "its routing matrix is not zero outside 2 experts"),
        ("threshold", "its routing matrix is not zero outside 2 experts"),
        ("residual", "what comes of its experts is more than a weighted sum of them"),
    ],
)
def test_near_misses_say_why(tmp_path, name, reason):
    plain = export(tmp_path, name, dynamo=False)
    (report,) = graphs.rewrite(plain, [graphs.FindMoeBlocks()], tmp_path / "out.onnx")
    assert not report.sites
    (miss,) = report.near_misses
    assert reason in miss.reason
    assert "experts" in miss.node
    assert_same(tmp_path / "out.onnx", plain)


@pytest.mark.parametrize("name", ["soft", "attention"])
def test_what_is_no_layer_of_experts_is_left_alone(tmp_path, name):
    plain = export(tmp_path, name, dynamo=False)
    (report,) = graphs.rewrite(plain, [graphs.FindMoeBlocks()], tmp_path / "out.onnx")
    assert not report.sites
    assert not report.near_misses
    assert kinds(tmp_path / "out.onnx") == kinds(plain)
