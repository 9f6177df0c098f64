"""What this machine can do, found out without loading any heavy package."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.engine.plugging import LIBRARY_VARIABLE
from toolkit.engine.requirements import device_capability
from toolkit.plugins.nvrtc import driver_version, find_nvrtc
from toolkit.plugins.ptx import AOT_RELEASE

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One capability.

    Attributes:
        name: What it is.
        ok: Whether this machine has it.
        detail: The version found, or why it is missing.
        enables: What needs it.
        mend: The command that brings it; empty where it is there.
    """

    name: str
    ok: bool
    detail: str
    enables: str
    mend: str = ""


# Package, what needs it, the extra of ours that brings it ("" for required dependencies).
_PACKAGES = (
    ("torch", "loading and exporting models", ""),
    ("onnx", "reading and checking graphs", ""),
    ("onnx-ir", "fusing and rewriting graphs", ""),
    ("onnxruntime", "running graphs, proofs on the CPU", "cpu"),
    ("transformers", "Hugging Face checkpoints", "hf"),
    ("tensorrt-rtx", "target tensorrt-rtx: engines without a GPU", "rtx"),
    ("tensorrt", "target tensorrt: engines for data-centre GPUs", "gpu"),
)


def examine() -> Iterator[Finding]:
    """Every capability, cheapest and most necessary first."""
    yield _python()
    yield _memory()
    yield _disk()
    for package, enables, extra in _PACKAGES:
        yield _package(package, enables, extra)
    yield _gpu()
    yield _aot_plugin()
    yield _plugin_library()


def _python() -> Finding:
    version = platform.python_version()
    ok = sys.version_info >= (3, 10)
    return Finding("python", ok, version, "everything", "" if ok else "install Python 3.10")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{total / 2**30:.1f} GiB, {os.cpu_count()} cores"
    return Finding("memory", True, detail, "models up to about a third of it, in float64 proofs")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    return Finding("disk", True, f"{free / 2**30:.1f} GiB free here", "three times a model's size")


def _package(package: str, enables: str, extra: str) -> Finding:
    version = _version(package) or (_version("onnxruntime-gpu") if extra == "cpu" else "")
    if version:
        return Finding(package, True, version, enables)
    wanted = f"'ensemble-to-engine[{extra}]'" if extra else package
    return Finding(package, False, "not installed", enables, f"pip install {wanted}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _gpu() -> Finding:
    capability = device_capability()
    enables = "running engines; building for target tensorrt"
    if capability is None:
        return Finding(
            "NVIDIA GPU", False, "no CUDA driver answers", enables,
            "on a machine with an NVIDIA GPU, install its driver",
        )  # fmt: skip
    return Finding("NVIDIA GPU", True, f"compute capability {capability}", enables)


def _aot_plugin() -> Finding:
    """Whether kernels can be put into an engine: a release, a compiler and a GPU."""
    name, enables = "plugin: aot", "engines of target tensorrt that carry our kernels"
    nvrtc, driver = find_nvrtc(), driver_version()
    if nvrtc is None:
        return Finding(
            name, False, "no NVRTC found", enables, "pip install 'ensemble-to-engine[gpu]'"
        )
    found = "NVRTC " + ".".join(map(str, nvrtc.version))
    fitting = find_nvrtc(driver)
    if driver is not None and fitting is None:
        wanted = ".".join(map(str, driver))
        return Finding(
            name, False, f"{found} is newer than the driver's CUDA {wanted}", enables,
            f"pip install 'nvidia-cuda-nvrtc{'-cu12' if driver < (13, 0) else ''}<={wanted}.999'",
        )  # fmt: skip
    release = _version("tensorrt")
    if not release or tuple(map(int, release.split(".")[:2])) < AOT_RELEASE:
        wanted = ".".join(map(str, AOT_RELEASE))
        detail = f"{found}, TensorRT {release or 'missing'}; wanted {wanted} or later"
        return Finding(name, False, detail, enables, f"pip install 'tensorrt>={wanted}'")
    if device_capability() is None:
        return Finding(
            name, False, f"{found}, no CUDA driver answers", enables,
            "on a machine with an NVIDIA GPU, install its driver",
        )  # fmt: skip
    return Finding(name, True, f"{found}, TensorRT {release}", enables)


def _plugin_library() -> Finding:
    name, enables = "plugin: library", "engines of target tensorrt beside our plugin library"
    named = os.environ.get(LIBRARY_VARIABLE, "")
    if named and Path(named).is_file():
        return Finding(name, True, named, enables)
    detail = f"{LIBRARY_VARIABLE} names no file: {named}" if named else "not built or not named"
    lacking = [tool for tool in ("nvcc", "cmake") if shutil.which(tool) is None]
    mend = f"install {' and '.join(lacking)}, then " if lacking else ""
    return Finding(
        name, False, detail, enables,
        f"{mend}make plugin TENSORRT_ROOT=..., and set {LIBRARY_VARIABLE}",
    )  # fmt: skip
