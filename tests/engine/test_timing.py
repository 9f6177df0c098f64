"""Where timing caches are, and builds that write one at the same time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from toolkit.engine import EngineOptions, timing
from toolkit.engine.timing import TimedBuild, cache_file, cache_folder
from toolkit.errors import EngineError


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches"),
        ("linux", {"XDG_CACHE_HOME": "caches"}, "home/.cache"),  # relative paths are ignored
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(
    monkeypatch, tmp_path, platform, variables, folder
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == tmp_path / folder / "ensemble-to-engine" / "timing"


def test_a_file_is_for_one_gpu_driver_and_version(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(timing, "device_capability", lambda: "9.0")
    monkeypatch.setattr(timing, "device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(timing, "driver_version", lambda: (13, 0))
    file = cache_file(EngineOptions(flavour="tensorrt"))
    assert file is not None
    assert Path(file).name == "tensorrt_{version}_sm9.0_NVIDIA-H100-80GB-HBM3_cuda13.0.timing"
    assert cache_file(EngineOptions(flavour="tensorrt", timing_cache="off")) is None
    assert cache_file(EngineOptions(flavour="tensorrt-rtx")) is None
    named = EngineOptions(flavour="tensorrt", timing_cache=tmp_path / "mine")
    assert cache_file(named) == str(tmp_path / "mine")
    with pytest.raises(EngineError, match=r"found no folder .*absent, wanted one"):
        cache_file(EngineOptions(flavour="tensorrt", timing_cache=tmp_path / "absent" / "mine"))


def timed(path: Path, content: bytes = b"new") -> TimedBuild:
    cache: Any = SimpleNamespace(serialize=lambda: content)
    return TimedBuild(path, False, cache, b"", [])


def test_a_lock_that_is_held_is_a_note_and_no_failure(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(timing, "_PATIENCE", 0.1)
    path = tmp_path / "cache"
    build = timed(path)
    with FileLock(f"{path}.lock"):
        assert build.keep(SimpleNamespace())["after"] == 3  # type: ignore[arg-type]
    assert build.notes == [f"the timing cache {path} was not written: another build holds its lock"]
    assert not path.exists()


def test_a_killed_build_leaves_the_old_cache_or_the_new_one(monkeypatch, tmp_path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"old")

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            timed(path).keep(SimpleNamespace(create_timing_cache=lambda data: None))  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    timed(path).keep(SimpleNamespace(create_timing_cache=lambda data: None))  # type: ignore[arg-type]
    assert path.read_bytes() == b"new"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "cache.lock"]
