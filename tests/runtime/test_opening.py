"""Runtimes by name: what is refused where, and that nothing falls back to the CPU unseen."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs.models import net
from toolkit.errors import CapabilityError, EngineError
from toolkit.runtime import RUNTIMES, open_runtime, open_session, ort

WITHOUT_GPU = pytest.mark.skipif("__import__('torch').cuda.is_available()")


def test_the_cpu_runs_a_file_and_a_bundle(tmp_path):
    path = net(tmp_path / "model.onnx", 0)
    feeds = {"x": np.ones((2, 4), np.float32)}
    found = []
    for place in (path, tmp_path):
        with open_runtime("cpu", place, optimise=False, label=", here") as runner:
            assert runner.name == "onnxruntime cpu, unoptimised, here"
            found.append(runner({spec.name: feeds["x"] for spec in runner.inputs}))
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


@WITHOUT_GPU
@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "cpu"])
def test_a_runtime_that_is_not_here_names_what_brings_it(name, tmp_path):
    with pytest.raises(CapabilityError) as found:
        open_runtime(name, net(tmp_path / "model.onnx", 0))
    extra = "rtx" if name == "tensorrt-rtx" else "gpu"
    assert f"ensemble-to-engine[{extra}]" in found.value.hint or "doctor" in found.value.hint


def test_an_unknown_name_and_an_absent_engine_are_told(tmp_path, monkeypatch):
    with pytest.raises(EngineError, match="unknown runtime 'gpu'"):
        open_runtime("gpu", tmp_path)
    monkeypatch.setattr("toolkit.runtime.opening.require_runtime", lambda name: None)
    with pytest.raises(EngineError, match=r"there is no engine at .*model\.plan") as found:
        open_runtime("tensorrt", tmp_path)
    assert found.value.hint == f"toolkit build {tmp_path} --target tensorrt"


@WITHOUT_GPU
@pytest.mark.parametrize("listed", [True, False])
def test_a_session_that_would_run_on_the_cpu_instead_is_refused(listed, tmp_path, monkeypatch):
    """As where ONNX Runtime is built with CUDA and its libraries do not load."""
    path = net(tmp_path / "model.onnx", 0)
    if listed:
        known = [*ort.providers(), "CUDAExecutionProvider"]
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: known)
        monkeypatch.setitem(ort._ASKED, "cuda", ["CPUExecutionProvider"])
    with pytest.raises(CapabilityError, match=r"would run on .*CPU.*, wanted CUDAExecution"):
        open_session(path, provider="cuda")
