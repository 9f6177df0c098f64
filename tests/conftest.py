"""What every test shares: one thread, no network, a Hypothesis profile, and honest skips."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from toolkit.artifacts import OnnxModel

# Before numpy, torch or ONNX Runtime load: sums in one order, and two workers on two cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# A test that reaches for a model hub is wrong; let it fail at once instead of waiting.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

# Examples run as long as they run: the machine may be busy, and time is a benchmark's business.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def _module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# What a marker needs, and how to see whether it is there.
NEEDS: dict[str, tuple[str, Callable[[], bool]]] = {
    "gpu": ("a CUDA device", lambda: Path("/dev/nvidiactl").exists()),
    "tensorrt": ("the tensorrt package", lambda: _module("tensorrt")),
    "rtx": ("the tensorrt_rtx package", lambda: _module("tensorrt_rtx")),
    "triton": ("the tritonserver program", lambda: shutil.which("tritonserver") is not None),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, naming the part that is missing."""
    missing = {name: what for name, (what, there) in NEEDS.items() if not there()}
    for item in items:
        lacks = [what for name, what in missing.items() if item.get_closest_marker(name)]
        if lacks:
            item.add_marker(pytest.mark.skip(reason="this machine lacks " + ", ".join(lacks)))


@pytest.fixture(scope="session")
def moe_graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnnxModel]:
    """By name, a tiny Mixture-of-Experts model exported with caches; see tests.moe_models.

    Once for all workers: the first that asks exports, the others wait for its files.
    """
    from tests.moe_models import export_tiny

    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "moe_graphs"

    def make(name: str) -> OnnxModel:
        folder, kept = shared / name, shared / f"{name}.pickle"
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not kept.exists():
                folder.mkdir()
                kept.write_bytes(pickle.dumps(export_tiny(folder, name)))
            model: OnnxModel = pickle.loads(kept.read_bytes())
            return model

    return cache(make)
