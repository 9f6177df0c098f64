"""The enumerations of TensorRT's Python API that this project names, as protocols of its names.

They are part of ``toolkit.engine.api``, where it says how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = [
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "LaterHardwareCompatibilityLevel",
    "LaterNetworkDefinitionCreationFlag",
    "LayerInformationFormat",
    "LayerType",
    "Member",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "RtxComputeCapability",
    "Severity",
    "TensorIOMode",
]


class Member(Protocol):
    """A member of an enumeration; its number differs between majors, its name does not."""

    @property
    def name(self) -> str:
        """What it is called."""

    def __int__(self) -> int: ...


class BuilderFlag(Protocol):
    """Switches of the builder."""

    TF32: Member
    SPARSE_WEIGHTS: Member
    REFIT: Member
    REFIT_IDENTICAL: Member
    STRIP_PLAN: Member
    WEIGHT_STREAMING: Member
    VERSION_COMPATIBLE: Member
    EXCLUDE_LEAN_RUNTIME: Member
    ERROR_ON_TIMING_CACHE_MISS: Member


class MemoryPoolType(Protocol):
    """Kinds of memory that a builder is given."""

    WORKSPACE: Member
    TACTIC_DRAM: Member
    TACTIC_SHARED_MEMORY: Member


class HardwareCompatibilityLevel(Protocol):
    """GPUs beside the builder's own that an engine is for."""

    AMPERE_PLUS: Member


class LaterHardwareCompatibilityLevel(HardwareCompatibilityLevel, Protocol):
    """With what came later."""

    SAME_COMPUTE_CAPABILITY: Member


class ProfilingVerbosity(Protocol):
    """What an engine keeps for an inspector."""

    NONE: Member
    LAYER_NAMES_ONLY: Member
    DETAILED: Member


class LayerType(Protocol):
    """Kinds of layers that are counted apart."""

    CONDITION: Member


class NetworkDefinitionCreationFlag(Protocol):
    """How a network is made; a bit each."""

    STRONGLY_TYPED: Member


class LaterNetworkDefinitionCreationFlag(NetworkDefinitionCreationFlag, Protocol):
    """With what came later."""

    PREFER_AOT_PYTHON_PLUGINS: Member


class DataType(Protocol):
    """The types of tensors that results name."""

    FLOAT: Member
    HALF: Member
    BF16: Member
    INT64: Member
    INT32: Member
    INT8: Member
    UINT8: Member
    BOOL: Member


class Severity(Protocol):
    """How grave a line of the log is."""

    INTERNAL_ERROR: Member
    ERROR: Member
    VERBOSE: Member


class TensorIOMode(Protocol):
    """Whether a tensor of an engine goes in or comes out."""

    INPUT: Member


class LayerInformationFormat(Protocol):
    """How an inspector writes."""

    JSON: Member


class RtxComputeCapability(Protocol):
    """GPU architectures, ``SM89`` and so on."""

    __members__: Mapping[str, Member]
