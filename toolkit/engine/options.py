"""What a user may ask of the engine builder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from toolkit.artifacts import Shapes
from toolkit.engine.plugging import Plugin
from toolkit.errors import EngineError

__all__ = ["TITLES", "EngineOptions", "Flavour"]

Flavour = Literal["tensorrt", "tensorrt-rtx"]

TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

_CAPABILITY = re.compile(r"^\d{1,2}\.\d$")


@dataclass(frozen=True)
class EngineOptions:
    """How to build an engine.

    Attributes:
        flavour: ``tensorrt`` needs the GPU that will run the engine; ``tensorrt-rtx`` builds
            without one.
        compute_capabilities: GPU architectures of a TensorRT-RTX engine, such as ``"8.9"``;
            empty leaves the choice to the builder (every architecture from Ampere on).
        workspace_bytes: Upper limit of the scratch memory a layer may use; None is the builder's.
        optimization_level: 0 (fastest build) to 5 (fastest engine); None is the builder's.
        tf32: Whether float32 products may round their inputs to 10 mantissa bits. Off, because
            float32 in the graph is a promise about the result.
        profiles: By name, an optimization profile: ranges in place of those of the whole. An
            engine has its layers timed and its memory sized for each, so that decoding one token
            need not be built for a long prompt. None is one profile for the whole range.
        plugin: What runs gating and dispatch of experts: ``none`` the operators' bodies, ``aot``
            kernels in the engine, ``library`` the plugin library that the environment names.
        time_limit: Seconds after which the builder is killed.

    Raises:
        EngineError: If a value is out of its range.
    """

    flavour: Flavour = "tensorrt-rtx"
    compute_capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    profiles: Mapping[str, Shapes] = field(default_factory=dict)
    plugin: Plugin = "none"
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        self._check_capabilities()
        if self.flavour not in TITLES:
            raise EngineError(
                f"unknown engine flavour {self.flavour!r}", hint="one of " + ", ".join(TITLES)
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise EngineError(f"workspace_bytes is {self.workspace_bytes}; it must be positive")
        if self.optimization_level not in {None, 0, 1, 2, 3, 4, 5}:
            raise EngineError(
                f"optimization_level is {self.optimization_level}; it must be 0, 1, 2, 3, 4 or 5"
            )
        if self.plugin != "none" and self.flavour == "tensorrt-rtx":
            raise EngineError(
                f"found plugin {self.plugin}: TensorRT-RTX takes no plugins",
                hint="leave it out, and the operators' bodies run; or use the target tensorrt",
            )
        if self.time_limit <= 0:
            raise EngineError(f"time_limit is {self.time_limit} s; it must be positive")

    def _check_capabilities(self) -> None:
        for capability in self.compute_capabilities:
            if not _CAPABILITY.match(capability):
                raise EngineError(
                    f"compute capability {capability!r} is not of the form major.minor",
                    hint="for example 8.6 (RTX 30), 8.9 (RTX 40) or 12.0 (RTX 50)",
                )
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            listed = ", ".join(self.compute_capabilities)
            raise EngineError(f"a compute capability is listed twice: {listed}")
        if self.compute_capabilities and self.flavour == "tensorrt":
            raise EngineError(
                "a TensorRT engine is built for the GPU of the machine that builds it, so "
                f"compute capabilities ({', '.join(self.compute_capabilities)}) cannot be chosen",
                hint="leave them out, or use the target tensorrt-rtx",
            )
