"""What tests of C++ programs need: a compiler and headers, or an honest skip."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["INCLUDE", "fetch_headers"]

_SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "cpp"
INCLUDE = Path("usr") / "include"  # in what fetch_headers gives


def fetch_headers() -> Path:
    """The headers that the C++ programs include, fetched once as their README says."""
    if missing := [name for name in ("cmake", "make", "c++") if shutil.which(name) is None]:
        pytest.skip(f"this machine lacks {', '.join(missing)}, so no C++ program is built")
    build = _SAMPLE / "build"
    build.mkdir(exist_ok=True)
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [_SAMPLE / "fetch_headers.sh"]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode == 4:
        reason = fetched.stderr.partition("error: ")[2].splitlines()[0]
        pytest.skip(f"the C++ headers cannot be fetched: {reason}")
    assert fetched.returncode == 0, fetched.stderr
    return build / "headers"
