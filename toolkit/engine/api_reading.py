"""What is only read: an opened engine, and a parser's errors, as protocols of TensorRT's names.

They are part of ``toolkit.engine.api``, where it says how they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from toolkit.engine.enums import Member

__all__ = ["EngineInspector", "ICudaEngine", "ParserError"]


class EngineInspector(Protocol):
    """Tells of an engine's layers."""

    def get_engine_information(self, format: Member) -> str:
        """All layers."""


class ICudaEngine(Protocol):
    """An engine that was opened."""

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs together."""

    @property
    def num_layers(self) -> int:
        """After fusion."""

    @property
    def num_optimization_profiles(self) -> int:
        """How many."""

    @property
    def num_aux_streams(self) -> int:
        """Streams beside the caller's."""

    @property
    def refittable(self) -> bool:
        """Whether its weights can be replaced."""

    @property
    def streamable_weights_size(self) -> int:
        """Bytes of weights that may stay in the host's memory."""

    def get_tensor_name(self, index: int) -> str:
        """Of an input or output."""

    def get_tensor_mode(self, name: str) -> Member:
        """Of ``TensorIOMode``."""

    def get_tensor_dtype(self, name: str) -> Member:
        """Of ``DataType``."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """With -1 for what differs from run to run."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]:
        """Min, opt and max."""

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """Bytes."""

    def create_engine_inspector(self) -> EngineInspector:
        """A new one."""


class ParserError(Protocol):
    """Why a file was not parsed."""

    def desc(self) -> str:
        """In words."""

    def node_name(self) -> str:
        """The node it is about."""

    def node_operator(self) -> str:
        """Its operator; empty where it is about none."""

    def local_function_stack(self) -> list[str]:
        """The functions it lies in, outermost first."""
