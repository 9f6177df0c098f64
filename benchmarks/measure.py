"""Timing with a fair clock, and the peak memory of one command."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "Run", "interleaved", "peak_memory", "ratio", "spread"]

# Runs as a process of its own because Linux counts the pages a child shares with its parent up to
# `exec` into the child's peak: the parent here holds little, whatever the benchmark has loaded.
_LAUNCHER = """
import json, os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ,
                     file_actions=[(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "kib": usage.ru_maxrss}))
"""


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of neighbouring runs, and their extremes."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One finished command: its exit code and its peak resident memory in bytes."""

    code: int
    peak: int


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns, so that a slow moment of the machine hits all alike.

    Every other round runs in the opposite order, because a call may leave caches warm for the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warmup, repeats):
        for name in list(calls) if turn % 2 == 0 else list(calls)[::-1]:
            start = time.perf_counter()
            calls[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """How much longer one took than the other in the same round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def spread(values: Sequence[float], scale: float = 1.0) -> tuple[float, float]:
    """The smallest and the largest value, scaled."""
    return min(values) * scale, max(values) * scale


def peak_memory(command: Sequence[str], log: str = "/dev/null") -> Run:
    """Run a command (its program by absolute path) and measure its peak resident set.

    The peak counts memory-mapped pages that were touched. It is that of the largest process, where
    the command starts others.

    Args:
        command: The program and its arguments.
        log: The file its output goes to.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, log, *command],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    return Run(found["code"], found["kib"] * 1024)
