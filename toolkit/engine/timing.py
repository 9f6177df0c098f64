"""The timing cache: how long kernels took, kept between builds.

One file for each flavour, version, GPU and driver, because timings hold for nothing else; TensorRT
refuses a cache of another kind by itself. Builds at the same time lose nothing of each other's: a
file is read again before it is written, under a lock, and replaced by one rename.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.engine.api import IBuilderConfig, ITimingCache, Module
from toolkit.engine.messages import CacheUse, Request
from toolkit.engine.options import EngineOptions
from toolkit.engine.requirements import device_capability, device_name
from toolkit.errors import EngineError
from toolkit.plugins.nvrtc import driver_version

__all__ = ["TimedBuild", "attach_cache", "cache_file", "cache_folder"]

_VERSION = "{version}"
_PATIENCE = 60.0  # seconds to wait for another build that writes


def cache_folder() -> Path | None:
    """Where this user's caches are, by the platform's convention; None where there is no home."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            said = os.environ.get("XDG_CACHE_HOME", "")
            # The specification asks to ignore a path that is relative.
            base = Path(said) if Path(said).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "ensemble-to-engine" / "timing"


def cache_file(options: EngineOptions) -> str | None:
    """The file that a build uses, ``{version}`` in its name to be filled in; None for none.

    Raises:
        EngineError: If a file is asked for in a folder that is not there.
    """
    if options.flavour != "tensorrt" or options.timing_cache == "off":
        return None
    if options.timing_cache == "auto":
        folder = cache_folder()
        driver = driver_version()
        parts = (
            options.flavour, _VERSION, f"sm{device_capability() or 'unknown'}",
            re.sub(r"\W+", "-", device_name() or "unknown"),
            "cuda" + (".".join(map(str, driver)) if driver else "unknown"),
        )  # fmt: skip
        return None if folder is None else str(folder / ("_".join(parts) + ".timing"))
    file = options.timing_cache.absolute()
    if not file.parent.is_dir():
        raise EngineError(f"found no folder {file.parent}, wanted one for the timing cache")
    return str(file)


@dataclass
class TimedBuild:
    """A cache that a build reads and adds to.

    Attributes:
        path: The file.
        strict: Whether it stays as it is.
        cache: TensorRT's.
        loaded: The file's bytes when the build began.
        notes: What a user should know.
    """

    path: Path
    strict: bool
    cache: ITimingCache
    loaded: bytes
    notes: list[str]

    def keep(self, config: IBuilderConfig) -> CacheUse:
        """Write what was learned, with what others wrote meanwhile; a failure is a note."""
        now = bytes(memoryview(self.cache.serialize()))
        if not self.strict and now != self.loaded:
            try:
                with FileLock(f"{self.path}.lock", timeout=_PATIENCE):
                    now = self._merged(config, now)
                    _replace(self.path, now)
            except (OSError, Timeout) as error:
                said = getattr(error, "strerror", None) or "another build holds its lock"
                self.notes.append(f"the timing cache {self.path} was not written: {said}")
        return {"path": str(self.path), "before": len(self.loaded), "after": len(now)}

    def _merged(self, config: IBuilderConfig, now: bytes) -> bytes:
        there = _read(self.path)
        if there in {b"", self.loaded}:
            return now
        other = config.create_timing_cache(there)
        if other is None or not self.cache.combine(other, False):
            return now
        return bytes(memoryview(self.cache.serialize()))


def attach_cache(trt: Module, config: IBuilderConfig, request: Request) -> TimedBuild | None:
    """Give the builder the cache that is asked for.

    Raises:
        EngineError: If a cache that is to be used alone is missing or is not of this device and
            version.
    """
    if request["timing_cache"] is None:
        return None
    path = Path(request["timing_cache"].replace(_VERSION, trt.__version__))
    strict = request["timing_cache_strict"]
    with contextlib.suppress(OSError):  # told when it cannot be written
        path.parent.mkdir(parents=True, exist_ok=True)
    loaded = _read(path)
    notes: list[str] = []
    if strict and not loaded:
        raise EngineError(
            f"there is no timing cache at {path}",
            hint="build once without --timing-cache-strict, which makes it",
        )
    cache = config.create_timing_cache(loaded)
    if cache is None or not config.set_timing_cache(cache, False):
        if strict:
            raise EngineError(
                f"the timing cache {path} is not of this GPU and of TensorRT {trt.__version__}",
                hint="build once without --timing-cache-strict, which makes a new one",
            )
        notes.append(f"the timing cache {path} is of another GPU or version; a new one is begun")
        loaded, cache = b"", config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            return None
    if strict:
        config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    return TimedBuild(path, strict, cache, loaded, notes)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _replace(path: Path, content: bytes) -> None:
    # One name, so that a build which is killed here leaves what the next one writes over.
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
