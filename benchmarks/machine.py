"""Where a figure was measured: processor, memory, system and versions."""

from __future__ import annotations

import platform
from importlib.metadata import distributions

from toolkit.machine import machine

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


def versions() -> dict[str, str]:
    """Python and the packages that decide the figures; a missing package is left out."""
    installed = {found.metadata["Name"]: found.version for found in distributions()}
    present = {name: installed[name] for name in PACKAGES if name in installed}
    return {"python": platform.python_version(), **present}
