from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from tests.cpp import fetch_headers

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="session")
def headers() -> Path:
    """What the C++ programs include."""
    return fetch_headers()


@pytest.fixture(scope="session")
def library() -> Path:
    """ONNX Runtime's shared library, as its wheel has it."""
    (found,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    return found


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipes' folder, with the samples importable as the scripts see each other."""
    pytest.importorskip("sklearn", reason="the samples need scikit-learn")
    monkeypatch.syspath_prepend(SAMPLES)
    monkeypatch.syspath_prepend(SAMPLES / "recipes")
    return SAMPLES / "recipes"
