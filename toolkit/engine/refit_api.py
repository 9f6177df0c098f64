"""The part of TensorRT's Python API that gives an engine new weights, as protocols.

As ``toolkit.engine.api``: every name is held against NVIDIA's own bindings by a test.
"""

from __future__ import annotations

from typing import Any, Protocol

from toolkit.engine.api import IHostMemory, Member

__all__ = ["ICudaEngine", "Module", "Refitter", "Runtime", "Weights"]


class Weights(Protocol):
    """Numbers that somebody else keeps in memory."""

    def __init__(self, type: Member, ptr: int, count: int) -> None: ...  # noqa: A002

    @property
    def dtype(self) -> Member:
        """Of ``DataType``."""

    @property
    def size(self) -> int:
        """How many numbers."""


class ICudaEngine(Protocol):
    """What is asked of an ``ICudaEngine`` whose weights are replaced."""

    @property
    def refittable(self) -> bool:
        """Whether it was built to take other weights."""

    def serialize(self) -> IHostMemory | None:
        """None on failure, which was logged."""


class Runtime(Protocol):
    """What is asked of a ``Runtime``."""

    def __init__(self, logger: Any) -> None: ...

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """None on failure, which was logged."""


class Refitter(Protocol):
    """Replaces the weights of an engine."""

    def __init__(self, engine: ICudaEngine, logger: Any) -> None: ...

    def get_all_weights(self) -> list[str]:
        """Names of the weights that can be replaced."""

    def get_missing_weights(self) -> list[str]:
        """Names of those that have to be given as well, because they were combined with others."""

    def get_weights_prototype(self, weights_name: str) -> Weights:
        """The type and number that is wanted."""

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        """Whether they were taken; they must be kept until the engine is refitted."""

    def refit_cuda_engine(self) -> bool:
        """Whether the engine has its new weights."""


class Module(Protocol):
    """``tensorrt`` or ``tensorrt_rtx``."""

    __version__: str
    ILogger: Any

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802
        """The class, called."""

    def Refitter(self, engine: ICudaEngine, logger: Any) -> Refitter:  # noqa: N802
        """The class, called."""

    def Weights(self, type: Member, ptr: int, count: int) -> Weights:  # noqa: A002, N802
        """The class, called."""
