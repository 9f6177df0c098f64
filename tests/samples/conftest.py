from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="session")
def headers() -> Path:
    """What the C++ programs include, fetched as their README says."""
    if missing := [name for name in ("cmake", "make", "c++") if shutil.which(name) is None]:
        pytest.skip(f"this machine lacks {', '.join(missing)}, so no C++ program is built")
    build = SAMPLES / "cpp" / "build"
    build.mkdir(exist_ok=True)
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [SAMPLES / "cpp" / "fetch_headers.sh"]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode == 4:
        reason = fetched.stderr.partition("error: ")[2].splitlines()[0]
        pytest.skip(f"the C++ headers cannot be fetched: {reason}")
    assert fetched.returncode == 0, fetched.stderr
    return build / "headers"


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
