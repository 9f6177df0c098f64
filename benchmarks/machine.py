"""Where a figure was measured: processor, memory, system and versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import distributions
from pathlib import Path

__all__ = ["machine", "versions"]

PACKAGES = (
    "ensemble-to-engine",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "torch",
    "transformers",
)


def machine() -> dict[str, str]:
    """The processor, the cores this process may use, the memory and the system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide the figures; a missing package is left out."""
    installed = {found.metadata["Name"]: found.version for found in distributions()}
    present = {name: installed[name] for name in PACKAGES if name in installed}
    return {"python": platform.python_version(), **present}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
