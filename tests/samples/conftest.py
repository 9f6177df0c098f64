from __future__ import annotations

from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipes' folder, with the samples importable as the scripts see each other."""
    pytest.importorskip("sklearn", reason="the samples need scikit-learn")
    monkeypatch.syspath_prepend(SAMPLES)
    monkeypatch.syspath_prepend(SAMPLES / "recipes")
    return SAMPLES / "recipes"
