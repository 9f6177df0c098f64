"""NVIDIA's ``perf_analyzer`` as the client, where it is installed."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

from toolkit.bench.options import BenchOptions
from toolkit.bench.results import LoadRecord
from toolkit.bench.server import Asked, max_batch_size
from toolkit.errors import EngineError

__all__ = ["WINDOW", "analyze", "find_program"]

WINDOW = 1.0  # seconds; it compares three of them
_GRACE = 60.0
_TOLERANCE = 10  # its own default, in per cent
_ANY = 1000
_UNSTABLE = "Failed to obtain stable measurement"


def find_program() -> str | None:
    """Its path, if it is there and is more than the empty package of that name."""
    return shutil.which("perf_analyzer")


def analyze(asked: Asked, options: BenchOptions, folder: Path) -> LoadRecord:
    """Let it measure one concurrency, over HTTP.

    Raises:
        EngineError: If it fails or does not end in time.
    """
    target = asked.target
    rows = asked.point.rows if max_batch_size(target) else 0
    data = {
        name: {
            "content": (array[:1] if rows else array).ravel().tolist(),
            "shape": list(array.shape[1:] if rows else array.shape),
        }
        for name, array in asked.job.feeds.items()
    }
    (folder / "data.json").write_text(json.dumps({"data": [data]}), encoding="utf-8")
    done = _run(asked, rows, _TOLERANCE, options, folder)
    if done.returncode and _UNSTABLE in done.stdout + done.stderr:
        # It keeps nothing of such a run; what any three windows say is less and not nothing.
        done = _run(asked, rows, _ANY, options, folder)
        stable = False
    else:
        stable = True
    if done.returncode or not (folder / "out.csv").is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise EngineError(
            f"perf_analyzer failed: {lines[-1].strip() if lines else f'code {done.returncode}'}",
            hint="--client toolkit measures without it",
        )
    return _read(folder / "out.csv", done.stdout, asked, rows, stable=stable)


def _run(
    asked: Asked, rows: int, tolerance: int, options: BenchOptions, folder: Path
) -> subprocess.CompletedProcess[str]:
    trials = max(3, math.floor(options.seconds / WINDOW))
    target = asked.target
    command = [
        "perf_analyzer", "-m", target.model, "-u", target.address, "-i", "http",
        "--concurrency-range", str(asked.concurrency), "--input-data", str(folder / "data.json"),
        "--measurement-interval", str(int(1000 * WINDOW)), "--max-trials", str(trials),
        "--stability-percentage", str(tolerance), "-f", str(folder / "out.csv"),
    ]  # fmt: skip
    command += ["-b", str(rows)] if rows else []
    command += ["-x", target.version] if target.version else []
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=options.seconds + _GRACE
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError("perf_analyzer did not end in time", hint="--client toolkit") from error


def _read(path: Path, said: str, asked: Asked, rows: int, *, stable: bool) -> LoadRecord:
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    requests = re.search(r"Request count: (\d+)", said)
    rate = float(row["Inferences/Second"])
    return LoadRecord(
        concurrency=asked.concurrency,
        dims=dict(asked.point.dims),
        client="perf_analyzer",
        latency_ms={
            name: (float(row[f"{name} latency"]) / 1e3, None, None)
            for name in ("p50", "p90", "p99")
        },
        requests=int(requests[1]) if requests else 0,
        errors=0,  # it ends at the first
        error="",
        requests_per_second=rate / (rows or 1),  # an inference is a row of a batch
        rows_per_second=rate * (1 if rows else asked.point.rows),
        stable=stable,
    )
