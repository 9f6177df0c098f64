"""The part of TensorRT's Python API that this project calls, as protocols of the same names.

TensorRT 10.8 to 11 and TensorRT-RTX offer all of it, except what is ``Rtx…`` here, which only
TensorRT-RTX has, and what is ``Later…``, which TensorRT has since 10.9 and is asked for first. A
test holds every class, member, property and parameter against NVIDIA's own bindings. An attribute
that is a property here is read only; one that is annotated is written, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.engine.api_reading import EngineInspector, ICudaEngine, ParserError
from toolkit.engine.enums import (
    BuilderFlag,
    DataType,
    HardwareCompatibilityLevel,
    LaterHardwareCompatibilityLevel,
    LaterNetworkDefinitionCreationFlag,
    LayerInformationFormat,
    LayerType,
    Member,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    RtxComputeCapability,
    Severity,
    TensorIOMode,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IPluginRegistry",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LaterHardwareCompatibilityLevel",
    "LaterNetworkDefinitionCreationFlag",
    "LayerInformationFormat",
    "LayerType",
    "Member",
    "MemoryPoolType",
    "Module",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "RtxBuilderConfig",
    "RtxComputeCapability",
    "RtxModule",
    "Runtime",
    "Severity",
    "TensorIOMode",
]


class ILogger(Protocol):
    """What the builder logs to; subclassed here."""

    Severity: Severity

    def __init__(self) -> None: ...

    def log(self, severity: Member, msg: str) -> None:
        """Called for every line."""


class IProgressMonitor(Protocol):
    """What the builder tells its phases to; subclassed here."""

    def __init__(self) -> None: ...

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step is done; False cancels the build."""

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends."""


class ITensor(Protocol):
    """A value of a network."""

    @property
    def name(self) -> str:
        """Its name in the ONNX file."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes; -1 is one that differs from run to run."""

    @property
    def dtype(self) -> Member:
        """Of ``DataType``."""

    @property
    def is_shape_tensor(self) -> bool:
        """Whether its values decide the shape of another."""

    def get_dimension_name(self, index: int) -> str:
        """The name of a dimension; empty where it has none."""


class ILayer(Protocol):
    """A layer of a network."""

    @property
    def num_outputs(self) -> int:
        """How many outputs."""

    @property
    def type(self) -> Member:
        """Of ``LayerType``."""

    def get_output(self, index: int) -> ITensor | None:
        """An output."""


class INetworkDefinition(Protocol):
    """A network, as the parser fills it."""

    @property
    def num_layers(self) -> int:
        """How many layers."""

    @property
    def num_inputs(self) -> int:
        """How many inputs."""

    @property
    def num_outputs(self) -> int:
        """How many outputs."""

    def get_input(self, index: int) -> ITensor:
        """An input."""

    def get_output(self, index: int) -> ITensor:
        """An output."""

    def get_layer(self, index: int) -> ILayer:
        """A layer."""


class IOptimizationProfile(Protocol):
    """Ranges of the inputs' shapes."""

    def set_shape(
        self,
        input: str,
        min: Sequence[int],
        opt: Sequence[int],
        max: Sequence[int],
    ) -> None:
        """The range of one input."""

    def get_shape(self, input: str) -> Sequence[Sequence[int]]:
        """Its min, opt and max."""


class ITimingCache(Protocol):
    """How long kernels took."""

    def serialize(self) -> IHostMemory:
        """Its bytes."""

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Take over what another has; False if that is of another device or version."""


class IBuilderConfig(Protocol):
    """What the builder is told."""

    progress_monitor: IProgressMonitor
    builder_optimization_level: int
    max_aux_streams: int
    profiling_verbosity: Member
    hardware_compatibility_level: Member
    plugins_to_serialize: Sequence[str]

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        """Of bytes; an empty one of none."""

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Whether it is of this device and version."""

    def set_flag(self, flag: Member) -> None:
        """Switch on a ``BuilderFlag``."""

    def clear_flag(self, flag: Member) -> None:
        """Switch off a ``BuilderFlag``."""

    def set_memory_pool_limit(self, pool: Member, pool_size: int) -> None:
        """Bytes of a ``MemoryPoolType``."""

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Its index; negative where it is refused."""


class RtxBuilderConfig(IBuilderConfig, Protocol):
    """What only TensorRT-RTX's builder is told."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: Member, index: int) -> bool:
        """Whether the architecture was taken."""


class IHostMemory(Protocol):
    """A serialized engine."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Builder(Protocol):
    """Makes networks, and engines of them."""

    def __init__(self, logger: ILogger) -> None: ...

    def create_network(self, flags: int) -> INetworkDefinition:
        """An empty network."""

    def create_builder_config(self) -> IBuilderConfig:
        """The defaults."""

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Without ranges."""

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        """None on failure, which was logged."""


class OnnxParser(Protocol):
    """Fills a network from an ONNX file."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None: ...

    @property
    def num_errors(self) -> int:
        """How many errors."""

    def parse_from_file(self, model: str) -> bool:
        """Whether the file at this path was parsed."""

    def get_error(self, index: int) -> ParserError:
        """An error."""


class Runtime(Protocol):
    """Opens plans."""

    engine_host_code_allowed: bool

    def __init__(self, logger: ILogger) -> None: ...

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """None where the plan is not taken."""


class IPluginRegistry(Protocol):
    """What the parser looks plugins up in."""

    def load_library(self, plugin_path: str) -> object | None:
        """Its handle; None where the library is refused."""


class Module(Protocol):
    """``tensorrt`` or ``tensorrt_rtx``."""

    __version__: str
    BuilderFlag: BuilderFlag
    DataType: DataType
    HardwareCompatibilityLevel: HardwareCompatibilityLevel
    LayerInformationFormat: LayerInformationFormat
    LayerType: LayerType
    MemoryPoolType: MemoryPoolType
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    ProfilingVerbosity: ProfilingVerbosity
    TensorIOMode: TensorIOMode
    ILogger: Any
    IProgressMonitor: Any

    def Builder(self, logger: Any) -> Builder:  # noqa: N802
        """The class, called."""

    def get_plugin_registry(self) -> IPluginRegistry:
        """The one of this process."""

    def OnnxParser(self, network: INetworkDefinition, logger: Any) -> OnnxParser:  # noqa: N802
        """The class, called."""

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802
        """The class, called."""


class RtxModule(Module, Protocol):
    """``tensorrt_rtx``."""

    ComputeCapability: RtxComputeCapability
