"""A Triton server under load: requests in flight, swept, each until windows agree."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from toolkit.bench import client_process
from toolkit.bench.clock import agreeing
from toolkit.bench.intervals import percentile
from toolkit.bench.options import BenchOptions
from toolkit.bench.perf_analyzer import analyze, find_program
from toolkit.bench.points import points_of
from toolkit.bench.results import BenchResult, LoadRecord, interval, new_result
from toolkit.bench.server import Asked, Target, require_model, target_of, write_request
from toolkit.bench.subject import Subject, job_of
from toolkit.errors import CapabilityError, EngineError, ToolkitError
from toolkit.progress import Progress, silent

__all__ = ["Client", "Load", "bench_server", "parse_concurrency"]

Client = Literal["auto", "toolkit", "tritonclient", "perf_analyzer"]

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_WINDOWS = 4  # of the options' windows make one: requests are slower and less even than runs
_TOLERANCE = 0.1  # perf_analyzer's
_START = 30.0  # seconds a client may take until its first window


@dataclass(frozen=True)
class Load:
    """What to do to a server.

    Attributes:
        server: ``http://localhost:8000`` or ``grpc://localhost:8001``, for instance.
        model: ``NAME`` or ``NAME:VERSION``; None takes the graph's name.
        concurrencies: Requests in flight, one after another.
        client: Who sends.
        client_python: An interpreter that has tritonclient; None is this one.
    """

    server: str
    model: str | None = None
    concurrencies: tuple[int, ...] = (1, 4, 16)
    client: Client = "auto"
    client_python: Path | None = None


def parse_concurrency(text: str) -> tuple[int, ...]:
    """Read ``1,4,16``.

    Raises:
        ToolkitError: If it is no list of numbers from 1.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ToolkitError(
            f"found the concurrency {text!r}, wanted numbers from 1", hint="--concurrency 1,4,16"
        )
    return tuple(dict.fromkeys(map(int, words)))


def bench_server(
    subject: Subject,
    load: Load,
    wanted: Sequence[Mapping[str, int]],
    options: BenchOptions,
    progress: Progress = silent,
) -> BenchResult:
    """Throughput and latency of a model on a server, at every concurrency.

    Requests carry the inputs of ``subject`` at the first of ``wanted``, or at one row of the usual
    sizes.

    Raises:
        EngineError: If the server does not answer, or answers nothing but errors.
        CapabilityError: If the client is not here.
        ToolkitError: If address, model or sizes are not of their form.
    """
    target = target_of(load.server, load.model or subject.name)
    client = _client(load, target)
    require_model(target)
    point = points_of(subject, wanted)[0]
    job = job_of(subject, point.dims, options.seed)
    found = []
    for done, concurrency in enumerate(load.concurrencies):
        progress(f"load {target.title}", done, len(load.concurrencies))
        with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as name:
            folder, asked = Path(name), Asked(target, job, point, concurrency)
            if client == "perf_analyzer":
                found.append(analyze(asked, options, folder))
            else:
                python = load.client_python or Path(sys.executable)
                found.append(_send(asked, options, folder, python))
    progress(f"load {target.title}", len(load.concurrencies), len(load.concurrencies))
    lost = sum(record.errors for record in found)
    notes = [f"{lost} requests failed: {next(r.error for r in found if r.error)}"] if lost else []
    return new_result(
        subject.name, options, server=target.title, loads=tuple(found), notes=tuple(notes)
    )


def _client(load: Load, target: Target) -> Client:
    """Who sends.

    Raises:
        CapabilityError: If it is not here.
        ToolkitError: If it does not speak the server's protocol.
    """
    chosen = load.client
    if chosen == "auto":
        if target.protocol == "grpc":
            chosen = "tritonclient"
        else:
            chosen = "perf_analyzer" if find_program() else "toolkit"
    if chosen == "perf_analyzer" and find_program() is None:
        raise CapabilityError("there is no perf_analyzer on PATH", hint="--client toolkit")
    if (chosen == "tritonclient") != (target.protocol == "grpc"):
        raise ToolkitError(
            f"--client {chosen} does not speak {target.protocol} here",
            hint="tritonclient is for grpc://, toolkit and perf_analyzer are for http://",
        )
    if chosen == "tritonclient":
        _require_tritonclient(load.client_python or Path(sys.executable))
    return chosen


def _require_tritonclient(python: Path) -> None:
    try:
        done = subprocess.run(
            [str(python), "-c", "import tritonclient.grpc"], capture_output=True, check=False
        )
        there = done.returncode == 0
    except OSError:
        there = False
    if not there:
        raise CapabilityError(
            f"{python} has no tritonclient for gRPC",
            hint="its protobuf is older than this project's, so give it an environment of its own:"
            " python -m venv client && client/bin/pip install 'tritonclient[grpc]', then"
            " --client-python client/bin/python; or use http://",
        )


def _send(asked: Asked, options: BenchOptions, folder: Path, python: Path) -> LoadRecord:
    """Windows from a client in a process of its own; the first is its warm-up."""
    length = _WINDOWS * options.window
    request = write_request(asked, length, folder)
    wanted = replace(options, tolerance=_TOLERANCE)
    windows: list[dict[str, Any]] = []
    rates: list[float] = []
    medians: list[float] = []
    stable = False
    with _running([str(python), client_process.__file__, str(request)], folder) as stdout:
        end = time.monotonic() + _START + length
        for line in stdout:
            window = json.loads(line)
            if not windows:
                end = time.monotonic() + options.seconds
            windows.append(window)
            if len(windows) > 1 and window["seconds"]:
                rates.append(len(window["seconds"]) / window["elapsed"])
                medians.append(float(np.median(window["seconds"])))
                stable = agreeing(rates, wanted) and agreeing(medians, wanted)
            if stable or time.monotonic() > end:
                break
    counted = windows[-options.agree :] if stable else windows[1:]
    return _record(asked, windows, counted, stable=stable)


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[IO[str]]:
    """The client's lines.

    Raises:
        EngineError: If it ends by itself.
    """
    log = folder / "client.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
        )
    try:
        assert process.stdout is not None
        yield process.stdout
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise EngineError(f"the client ended: {said[-1]}")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _record(
    asked: Asked,
    windows: Sequence[Mapping[str, Any]],
    counted: Sequence[Mapping[str, Any]],
    *,
    stable: bool,
) -> LoadRecord:
    target, point = asked.target, asked.point
    seconds = np.array([second for window in counted for second in window["seconds"]])
    errors = sum(window["errors"] for window in windows)
    error = next((window["error"] for window in windows if window["error"]), "")
    if not len(seconds):
        raise EngineError(
            f"{target.title} at {target.address} gave no answer: {error or 'none came in time'}",
            hint="a larger --seconds, or look at the server's log",
        )
    rate = len(seconds) / sum(window["elapsed"] for window in counted)
    return LoadRecord(
        concurrency=asked.concurrency,
        dims=dict(point.dims),
        client="tritonclient" if target.protocol == "grpc" else "toolkit",
        latency_ms={
            name: interval(percentile(seconds, share).scaled(1e3))
            for name, share in _SHARES.items()
        },
        requests=len(seconds),
        errors=errors,
        error=error,
        requests_per_second=rate,
        rows_per_second=rate * point.rows,
        stable=stable,
    )
