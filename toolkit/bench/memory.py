"""Resident memory of this process, and its peak over a stretch of work (Linux)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

__all__ = ["peak", "resident", "restart_peak"]


def resident() -> int:
    """Bytes that lie in memory now."""
    return _field("VmRSS")


def peak() -> int:
    """The most bytes that have lain in memory since the start, or since ``restart_peak``."""
    return _field("VmHWM")


def restart_peak() -> None:
    """Begin a new stretch, where the kernel allows it (proc(5), ``clear_refs``)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _field(name: str) -> int:
    # Not ru_maxrss, which a process inherits from the one that started it.
    found = re.search(
        rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace")
    )
    return int(found[1]) * 1024 if found else 0
