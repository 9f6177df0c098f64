"""What a user may ask of the engine builder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.artifacts import Shapes
from toolkit.engine.choices import TITLES, Flavour, Hardware, Pool, Refit, Verbosity
from toolkit.engine.limits import check
from toolkit.engine.plugging import Plugin
from toolkit.errors import EngineError

__all__ = ["DEFAULTS", "EngineOptions"]


@dataclass(frozen=True)
class EngineOptions:
    """How to build an engine. Which flavour has what is in ``toolkit.engine.limits``.

    Attributes:
        flavour: ``tensorrt`` needs the GPU that will run the engine; ``tensorrt-rtx`` builds
            without one.
        compute_capabilities: GPU architectures of a TensorRT-RTX engine, such as ``"8.9"``;
            empty leaves the choice to the builder (every architecture from Ampere on).
        memory: Upper limits in bytes: ``workspace``, scratch memory of a layer; ``tactic_dram``,
            memory for trying kernels; ``tactic_shared_memory``, of one kernel. Those left out are
            the builder's.
        optimization_level: 0 (fastest build) to 5 (fastest engine); None is the builder's.
        aux_streams: CUDA streams beside the caller's that one run may use, so 0 is one stream;
            None is the builder's.
        tf32: Whether float32 products may round their inputs to 10 mantissa bits. Off, because
            float32 in the graph is a promise about the result.
        sparse: Whether kernels for weights of which two in four are 0 may be used where they are.
        refit: ``any`` lets weights be replaced by others later, ``identical`` only by those the
            engine was built with, which leaves the builder more freedom.
        strip_weights: Leave the weights that can be refitted out of the plan; without ``refit``
            that means ``identical``.
        weight_streaming: Let a runtime keep part of the weights in the host's memory. How much is
            said when the engine is run.
        version_compatible: Later releases of the same major version can run the plan.
        exclude_lean_runtime: The runtime that such a plan carries is left out of it.
        hardware_compatibility: GPUs beside the one at hand that can run a TensorRT engine.
        profiling_verbosity: What an inspector can say of the engine; None is the builder's,
            the names of layers.
        profiles: By name, an optimization profile: ranges in place of those of the whole. An
            engine has its layers timed and its memory sized for each, so that decoding one token
            need not be built for a long prompt. None is one profile for the whole range.
        plugin: What runs gating and dispatch of experts: ``none`` the operators' bodies, ``aot``
            kernels in the engine, ``library`` the plugin library that the environment names.
        timing_cache: A file, ``auto`` for one in the user's cache folder, or ``off``.
        timing_cache_strict: Build from the timings in that file alone and leave it as it is; a
            kernel that is not in it is an error.
        time_limit: Seconds after which the builder is killed.

    Raises:
        EngineError: If a value is out of its range, or the flavour has no such option.
    """

    flavour: Flavour = "tensorrt-rtx"
    compute_capabilities: tuple[str, ...] = ()
    memory: Mapping[Pool, int] = field(default_factory=dict)
    optimization_level: int | None = None
    aux_streams: int | None = None
    tf32: bool = False
    sparse: bool = False
    refit: Refit = "none"
    strip_weights: bool = False
    weight_streaming: bool = False
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatibility: Hardware = "none"
    profiling_verbosity: Verbosity | None = None
    profiles: Mapping[str, Shapes] = field(default_factory=dict)
    plugin: Plugin = "none"
    timing_cache: Path | Literal["auto", "off"] = "auto"
    timing_cache_strict: bool = False
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        if self.flavour not in TITLES:
            raise EngineError(
                f"unknown engine flavour {self.flavour!r}", hint="one of " + ", ".join(TITLES)
            )
        check(self)

    def stated(self) -> dict[str, Any]:
        """Those that differ from the default, as plain data; profiles and flavour left out."""
        left_out = {"flavour", "profiles", "time_limit", "timing_cache"}
        found: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name not in left_out and value != DEFAULTS[each.name]:
                found[each.name] = list(value) if isinstance(value, tuple) else value
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in found.items()}


DEFAULTS: Mapping[str, Any] = {
    each.name: each.default_factory() if callable(each.default_factory) else each.default
    for each in dataclasses.fields(EngineOptions)
}
"""What an option is unless it is stated."""
