"""Pieces of running an engine: types, profiles, and what TensorRT calls back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from toolkit.errors import EngineError
from toolkit.runtime.base import Array
from toolkit.runtime.device import Device
from toolkit.runtime.tensorrt_api import ICudaEngine, Member, RuntimeModule

__all__ = [
    "Shapes",
    "as_declared",
    "dtype_name",
    "dtype_of",
    "fitting_profile",
    "make_allocator",
    "make_logger",
    "names_of",
    "symbolic",
]

Shapes = dict[str, tuple[int, ...]]

_DTYPES: Mapping[str, tuple[str, npt.DTypeLike]] = {
    "FLOAT": ("float32", np.float32), "HALF": ("float16", np.float16),
    "BF16": ("bfloat16", ml_dtypes.bfloat16), "INT64": ("int64", np.int64),
    "INT32": ("int32", np.int32), "INT8": ("int8", np.int8),
    "UINT8": ("uint8", np.uint8), "BOOL": ("bool", np.bool_),
}  # fmt: skip


def names_of(engine: ICudaEngine, mode: Member) -> list[str]:
    """The inputs or the outputs, in the engine's order."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [name for name in names if engine.get_tensor_mode(name) == mode]


def dtype_of(engine: ICudaEngine, name: str) -> np.dtype[Any]:
    """The type of a tensor in numpy."""
    return np.dtype(_DTYPES[engine.get_tensor_dtype(name).name][1])


def dtype_name(engine: ICudaEngine, name: str) -> str:
    """The type of a tensor as ``toolkit.artifacts.DTYPES`` calls it."""
    return _DTYPES[engine.get_tensor_dtype(name).name][0]


def symbolic(name: str, shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """A shape whose dynamic dimensions are called ``NAME_AXIS``."""
    return tuple(size if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(shape))


def as_declared(array: Array, declared: Member) -> Array:
    """Floats in the width that an engine declares; anything else as it is."""
    dtype = np.dtype(_DTYPES[declared.name][1])
    wide = array.dtype.kind == "f" and declared.name in {"FLOAT", "HALF", "BF16"}
    return array.astype(dtype) if wide and array.dtype != dtype else array


def fitting_profile(engine: ICudaEngine, shapes: Shapes) -> int:
    """The profile of the smallest largest shapes that has these.

    Raises:
        EngineError: If none has.
    """
    fitting: dict[int, int] = {}
    for index in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, index) for name in shapes}
        if all(_within(shape, ranges[name]) for name, shape in shapes.items()):
            fitting[index] = sum(prod(span[2]) for span in ranges.values())
    if not fitting:
        said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise EngineError(
            f"no profile of the engine has the shapes {said}",
            hint="toolkit inspect shows its profiles; toolkit build --profile makes others",
        )
    return min(fitting, key=fitting.__getitem__)


def _within(shape: tuple[int, ...], span: Any) -> bool:
    least, _, most = (tuple(each) for each in span)
    return len(shape) == len(least) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )


def make_allocator(trt: RuntimeModule, device: Device) -> Any:
    """An ``IOutputAllocator`` with ``buffer`` and ``shape``."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined]
        """Memory for one output, as large as was ever asked for."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer = device.buffer(0)
            self.shape: tuple[int, ...] = ()

        def reallocate_output(
            self, _tensor_name: str, _memory: int, size: int, _alignment: int
        ) -> int:
            if self.buffer.nbytes < size:
                self.buffer = device.buffer(size)
            return self.buffer.address

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, _tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


def make_logger(trt: RuntimeModule) -> Any:
    """An ``ILogger`` with ``last_error``."""
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Remembers the last error; nothing is printed."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, level: Member, text: str) -> None:
            if level in {severity.ERROR, severity.INTERNAL_ERROR}:
                self.last_error = text

    return Logger()
