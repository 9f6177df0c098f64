"""What a flavour needs on this machine, found out without loading TensorRT.

TensorRT's own answer to a missing driver was a segmentation fault in several releases, so the
driver is asked first, through its C interface.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys

from toolkit.engine.choices import TITLES, Flavour
from toolkit.errors import CapabilityError

__all__ = ["DISTRIBUTIONS", "MODULES", "device_capability", "device_name", "missing", "require"]

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

DISTRIBUTIONS: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}

_INSTALL: dict[Flavour, str] = {
    "tensorrt": "pip install 'ensemble-to-engine[gpu]'",
    "tensorrt-rtx": "pip install 'ensemble-to-engine[rtx]'",
}

# CUdevice_attribute, from cuda.h of the CUDA driver API.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


def missing(flavour: Flavour) -> tuple[str, ...]:
    """What this machine lacks for building engines of a flavour; empty when it lacks nothing."""
    lacking = []
    if importlib.util.find_spec(MODULES[flavour]) is None:
        lacking.append(f"the Python package {MODULES[flavour]}")
    if flavour == "tensorrt" and device_capability() is None:
        lacking.append("an NVIDIA GPU with its driver")
    return tuple(lacking)


def require(flavour: Flavour) -> None:
    """Check that engines of a flavour can be built here.

    Raises:
        CapabilityError: If a package or the GPU is missing, naming each and the install command.
    """
    lacking = missing(flavour)
    if not lacking:
        return
    hint = f"install it with: {_INSTALL[flavour]}"
    if any("GPU" in item for item in lacking):
        hint = (
            f"on a machine with a GPU: {_INSTALL[flavour]}; "
            "the target tensorrt-rtx builds engines without a GPU"
        )
    raise CapabilityError(
        f"a {TITLES[flavour]} engine cannot be built: this machine lacks {' and '.join(lacking)}",
        hint=hint,
    )


@functools.cache
def device_capability() -> str | None:
    """The compute capability of the first CUDA device, such as ``"8.9"``; None without one."""
    cuda, device = _device()
    if cuda is None:
        return None
    version = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return None
        version.append(str(value.value))
    return ".".join(version)


@functools.cache
def device_name() -> str | None:
    """What the first CUDA device is called; None without one."""
    cuda, device = _device()
    text = ctypes.create_string_buffer(256)
    if cuda is None or cuda.cuDeviceGetName(text, len(text), device) != 0:
        return None
    return text.value.decode(errors="replace")


def _device() -> tuple[ctypes.CDLL | None, ctypes.c_int]:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    device = ctypes.c_int()
    try:
        cuda = ctypes.CDLL(name)
    except OSError:
        return None, device
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None, device
    return cuda, device
