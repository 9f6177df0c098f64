"""The part of TensorRT's Python API that runs an engine, as protocols of the same names.

As ``toolkit.engine.api`` is for building: TensorRT 10.8 to 11 and TensorRT-RTX offer all of it, and
a test holds every name against NVIDIA's own bindings. What is ``override`` here is called by
TensorRT on a subclass; the bindings show no such method, only its name in their library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

__all__ = [
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IOutputAllocator",
    "Member",
    "Runtime",
    "RuntimeModule",
    "Severity",
    "TensorIOMode",
    "override",
]

_F = TypeVar("_F")


def override(function: _F) -> _F:
    """Mark a method that TensorRT calls on a subclass and that is no attribute of the class."""
    function.__dict__["overridden"] = True
    return function


class Member(Protocol):
    """A member of an enumeration; its number differs between majors, its name does not."""

    @property
    def name(self) -> str:
        """What it is called."""

    def __int__(self) -> int: ...


class TensorIOMode(Protocol):
    """What a tensor is to an engine."""

    INPUT: Member
    OUTPUT: Member


class Severity(Protocol):
    """How grave a line of the log is."""

    INTERNAL_ERROR: Member
    ERROR: Member
    VERBOSE: Member


class ILogger(Protocol):
    """What TensorRT logs to; subclassed here."""

    Severity: Severity

    def __init__(self) -> None: ...

    def log(self, severity: Member, msg: str) -> None:
        """Called for every line."""


class IOutputAllocator(Protocol):
    """Gives memory to an output whose size is known only when it was computed; subclassed here."""

    def __init__(self) -> None: ...

    @override
    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """The address of ``size`` bytes."""

    @override
    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        """The same on a stream."""

    @override
    def notify_shape(self, tensor_name: str, shape: Sequence[int]) -> None:
        """The output's shape, once it is known."""


class IExecutionContext(Protocol):
    """One run of an engine at a time."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Whether the profile was taken."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether the shape was taken."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Whether the address was taken."""

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        """Whether the allocator was taken."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """With the inputs' shapes set; -1 is a size that follows from values."""

    def infer_shapes(self) -> list[str]:
        """Inputs of which not enough is known to run."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Whether the run was started."""


class ICudaEngine(Protocol):
    """An engine on this machine's GPU."""

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs."""

    @property
    def num_optimization_profiles(self) -> int:
        """How many profiles."""

    def get_tensor_name(self, index: int) -> str:
        """The name of an input or output."""

    def get_tensor_mode(self, name: str) -> Member:
        """Of ``TensorIOMode``."""

    def get_tensor_dtype(self, name: str) -> Member:
        """Of ``DataType``."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Sizes; -1 is one that differs from run to run."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]:
        """Least, usual and largest shape of an input."""

    def create_execution_context(self) -> IExecutionContext | None:
        """None where its memory does not fit."""


class Runtime(Protocol):
    """Reads plans."""

    def __init__(self, logger: ILogger) -> None: ...

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """None on failure, which was logged."""


class RuntimeModule(Protocol):
    """``tensorrt`` or ``tensorrt_rtx``."""

    __version__: str
    TensorIOMode: TensorIOMode
    ILogger: Any
    IOutputAllocator: Any

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802
        """The class, called."""
