"""Refitting an engine in a process of its own, as far as a machine without a GPU goes."""

from __future__ import annotations

import pytest

from tests.graphs.models import net
from toolkit.artifacts import DimRange, Engine
from toolkit.engine import EngineOptions, build_engine, refit, refit_engine, require_refit
from toolkit.errors import CapabilityError, EngineError

WITHOUT_GPU = pytest.mark.skipif("__import__('torch').cuda.is_available()")


@WITHOUT_GPU
@pytest.mark.parametrize(("flavour", "extra"), [("tensorrt", "gpu"), ("tensorrt-rtx", "rtx")])
def test_without_a_gpu_it_is_said_what_is_missing(flavour, extra):
    with pytest.raises(CapabilityError, match="an NVIDIA GPU with its driver") as found:
        require_refit(flavour)
    assert f"ensemble-to-engine[{extra}]" in found.value.hint


@WITHOUT_GPU
@pytest.mark.rtx
def test_the_process_answers_in_words_and_leaves_no_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(refit, "require_refit", lambda flavour: None)
    model, plan = net(tmp_path / "net.onnx", 0), tmp_path / "model.plan"
    options = EngineOptions("tensorrt-rtx", compute_capabilities=("8.9",), optimization_level=0)
    built = build_engine(model, {"batch": DimRange(1, 2, 4)}, options, plan)
    with pytest.raises(EngineError, match="the plan is refused: "):
        refit_engine(built, model, ["weight"], tmp_path / "new.plan")
    assert not (tmp_path / "new.plan").exists()


@pytest.mark.skipif("__import__('importlib.util').util.find_spec('tensorrt')")
def test_a_crash_and_a_missing_package_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(refit, "require_refit", lambda flavour: None)
    engine = Engine(tmp_path / "model.plan", "tensorrt", "11", (), 1, 0.0)
    (tmp_path / "model.plan").write_bytes(b"none")
    with pytest.raises(CapabilityError, match="TensorRT is installed but does not load"):
        refit_engine(engine, tmp_path / "net.onnx", [], tmp_path / "new.plan")
    monkeypatch.setattr(refit, "COMMAND", (refit.COMMAND[0], "-c", "import os; os.abort()"))
    with pytest.raises(EngineError, match=r"crashed \(signal SIGABRT\)"):
        refit_engine(engine, tmp_path / "net.onnx", [], tmp_path / "new.plan")
