"""``bench.json``: what was measured, in the units that people read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit._version import __version__
from toolkit.bench.intervals import METHOD, Estimate, Verdict
from toolkit.bench.options import BenchOptions
from toolkit.bench.points import Kind
from toolkit.bundle import is_bundle, versions
from toolkit.errors import ToolkitError
from toolkit.machine import machine

__all__ = [
    "BenchResult",
    "Interval",
    "LoadRecord",
    "PointRecord",
    "RatioRecord",
    "check_out",
    "interval",
    "new_result",
    "read_result",
]

Interval = tuple[float, float | None, float | None]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PointRecord(_Record):
    """One runtime at one point; an interval is (value, low, high), an end null where unknown."""

    runtime: str
    kind: Kind
    dims: dict[str, int]
    rows: int
    tokens: int
    latency_ms: dict[str, Interval]  # p50, p90, p99
    mean_ms: float
    runs: int
    stable: bool  # whether the last windows agreed
    windows_ms: tuple[float, ...]  # the median of every window
    runs_per_second: float
    rows_per_second: float
    tokens_per_second: float | None
    load_seconds: float
    memory_bytes: dict[Literal["loading", "loaded", "running"], int]
    samples_ms: tuple[float, ...]  # at most a thousand, evenly spaced in time


class RatioRecord(_Record):
    """Two sides at one point: the first's time over the second's."""

    first: str
    second: str
    runtime: str
    kind: Kind
    dims: dict[str, int]
    first_ms: float
    second_ms: float
    ratio: Interval
    verdict: Verdict
    rounds: int  # 0 where both were measured at different times


class LoadRecord(_Record):
    """A server at one concurrency."""

    concurrency: int
    dims: dict[str, int]
    client: str
    latency_ms: dict[str, Interval]
    requests: int
    errors: int
    error: str  # the first
    requests_per_second: float
    rows_per_second: float
    stable: bool


class BenchResult(_Record):
    """Everything one call of ``toolkit bench`` measured."""

    format: Literal[1] = 1
    toolkit: str = __version__
    subject: str
    server: str | None = None  # the model on it, and its version
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    intervals: str = METHOD
    points: tuple[PointRecord, ...] = ()
    ratios: tuple[RatioRecord, ...] = ()
    loads: tuple[LoadRecord, ...] = ()
    notes: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """An earlier file is replaced only by a complete one."""
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            unfinished.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def data(self) -> dict[str, Any]:
        """For ``--json``: all of it but the samples."""
        found: dict[str, Any] = json.loads(self.model_dump_json())
        for point in found["points"]:
            del point["samples_ms"]
        return found


def read_result(path: Path) -> BenchResult:
    """Read ``bench.json``.

    Raises:
        ToolkitError: If it is none.
    """
    try:
        return BenchResult.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ToolkitError(
            f"{path} is no result of toolkit bench: {str(error).splitlines()[0]}",
            hint="wanted a bench.json, a bundle or an .onnx file",
        ) from error


def new_result(subject: str, options: BenchOptions, **fields: Any) -> BenchResult:
    """With this machine, these versions and these settings."""
    return BenchResult(
        subject=subject, machine=machine(), versions=versions(), settings=asdict(options), **fields
    )


def check_out(out: Path | None) -> None:
    """Whether results may be written into this folder.

    Raises:
        ToolkitError: If it is a file, or stands in a bundle, whose files are all in its manifest.
    """
    if out is None:
        return
    whole = out.absolute()
    if out.exists() and not out.is_dir():
        raise ToolkitError(f"{out} is a file, wanted a folder for bench.json and bench.html")
    inside = next((each for each in (whole, *whole.parents) if is_bundle(each)), None)
    if inside is not None:
        raise ToolkitError(
            f"{out} is in the bundle {inside.name}, which holds what its manifest says and no more",
            hint=f"-o {inside.name}.bench",
        )


def interval(found: Estimate) -> Interval:
    """As plain numbers of six digits."""
    low, high = (None if end is None else _short(end) for end in (found.low, found.high))
    return _short(found.value), low, high


def _short(value: float) -> float:
    return float(np.format_float_positional(value, 6, fractional=False))
