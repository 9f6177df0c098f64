"""Running an engine, on a double that has the real names and computes on the host's memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.graphs.models import net
from tests.tensorrt_stubs.misspelling import mutants, survives
from tests.tensorrt_stubs.running import RUNS, Host
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, build_engine
from toolkit.errors import EngineError
from toolkit.runtime import TrtRunner, engine, engine_parts

NUMPYS = {"dtype", "shape"}  # of arrays here, which NumPy would miss
REAL = SimpleNamespace(engine=engine, parts=engine_parts)


@pytest.mark.parametrize("scenario", RUNS, ids=lambda scenario: scenario.__name__[1:])
def test_an_engine_is_run_as_tensorrt_wants_it(scenario):
    scenario(REAL)


def test_no_name_can_be_misspelled_unseen(monkeypatch):
    tried: list[str] = []
    unseen: list[str] = []
    for part, real in vars(REAL).items():
        for word, module in mutants(Path(real.__file__), real.__name__):
            if word in NUMPYS:
                continue
            tried.append(word)
            with monkeypatch.context() as patched:
                if part == "parts":
                    for name in module.__all__:
                        if hasattr(engine, name):
                            patched.setattr(engine, name, getattr(module, name))
                if survives(RUNS, SimpleNamespace(**{**vars(REAL), part: module})):
                    unseen.append(f"{part}: {word}")
    assert unseen == []
    assert {"execute_async_v3", "notify_shape", "get_tensor_profile_shape", "INPUT"} <= set(tried)
    assert len(tried) >= 25


@pytest.mark.rtx
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is here")
def test_a_real_plan_without_a_gpu_is_refused_in_words(tmp_path):
    plan = tmp_path / "model.plan"
    options = EngineOptions("tensorrt-rtx", compute_capabilities=("8.9",), optimization_level=0)
    build_engine(net(tmp_path / "net.onnx", 0), {"batch": DimRange(1, 2, 4)}, options, plan)
    with (
        pytest.raises(EngineError, match=r"tensorrt-rtx [\d.]+ refuses model\.plan: "),
        TrtRunner(plan, "tensorrt-rtx", device=Host),
    ):
        np.zeros(0)
