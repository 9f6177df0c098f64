"""Starting the command line, against starting Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measure import interleaved, ratio, spread
from benchmarks.rows import Row

__all__ = ["run"]

BOUND = 6.0


def run(*, quick: bool) -> list[Row]:
    """Time ``toolkit --help`` and ``python -c pass`` in turns."""
    toolkit = Path(sys.executable).with_name("toolkit")
    call = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    seconds = interleaved(
        {
            "floor": partial(call, [sys.executable, "-c", "pass"]),
            "help": partial(call, [str(toolkit), "--help"]),
            "version": partial(call, [str(toolkit), "--version"]),
        },
        repeats=9 if quick else 21,
        warmup=2,
    )
    rows = [
        Row.of(f"toolkit --{name} / python -c pass", ratio(seconds[name], seconds["floor"]), BOUND)
        for name in ("help", "version")
    ]
    for name, metric in (("floor", "python -c pass"), ("help", "toolkit --help")):
        times = seconds[name]
        rows.append(Row(metric, statistics.median(times) * 1e3, "ms", spread(times, 1e3)))
    return rows
