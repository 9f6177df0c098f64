"""What the builder is told beside the network, in TensorRT's words.

Members of enumerations are always named, because their numbers changed between majors.
"""

from __future__ import annotations

import re
from typing import cast

from toolkit.engine.api import (
    IBuilderConfig,
    LaterHardwareCompatibilityLevel,
    Member,
    Module,
    RtxBuilderConfig,
    RtxModule,
)
from toolkit.engine.messages import Request
from toolkit.errors import CapabilityError, EngineError

__all__ = ["configure"]


def configure(trt: Module, config: IBuilderConfig, request: Request) -> None:
    """Set every option that was stated; the others stay the builder's own.

    Raises:
        CapabilityError: If this release lacks one.
        EngineError: If an architecture is not known to it, or is refused.
    """
    if not request["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in _flags(trt, request):
        config.set_flag(flag)
    for pool, member in _pools(trt).items():
        if pool in request["memory"]:
            config.set_memory_pool_limit(member, request["memory"][pool])
    if request["optimization_level"] is not None:
        config.builder_optimization_level = request["optimization_level"]
    if request["aux_streams"] is not None:
        config.max_aux_streams = request["aux_streams"]
    if request["profiling_verbosity"] is not None:
        config.profiling_verbosity = _verbosity(trt, request["profiling_verbosity"])
    if request["hardware_compatibility"] != "none":
        config.hardware_compatibility_level = _hardware(trt, request["hardware_compatibility"])
    if request["compute_capabilities"]:
        rtx = cast("RtxModule", trt), cast("RtxBuilderConfig", config)
        _target(*rtx, request["compute_capabilities"])


def _flags(trt: Module, request: Request) -> list[Member]:
    flags = trt.BuilderFlag
    switches = {
        "sparse": flags.SPARSE_WEIGHTS,
        "strip_weights": flags.STRIP_PLAN,
        "weight_streaming": flags.WEIGHT_STREAMING,
        "version_compatible": flags.VERSION_COMPATIBLE,
        # After the one that it needs.
        "exclude_lean_runtime": flags.EXCLUDE_LEAN_RUNTIME,
    }
    refits = {"any": flags.REFIT, "identical": flags.REFIT_IDENTICAL}
    wanted = [member for name, member in switches.items() if name in request["switches"]]
    if request["refit"] in refits:
        wanted.append(refits[request["refit"]])
    return wanted


def _pools(trt: Module) -> dict[str, Member]:
    pools = trt.MemoryPoolType
    return {
        "workspace": pools.WORKSPACE,
        "tactic_dram": pools.TACTIC_DRAM,
        "tactic_shared_memory": pools.TACTIC_SHARED_MEMORY,
    }


def _verbosity(trt: Module, wanted: str) -> Member:
    kinds = trt.ProfilingVerbosity
    return {
        "none": kinds.NONE, "layer_names": kinds.LAYER_NAMES_ONLY, "detailed": kinds.DETAILED,
    }[wanted]  # fmt: skip


def _hardware(trt: Module, wanted: str) -> Member:
    levels = trt.HardwareCompatibilityLevel
    if wanted == "ampere_plus":
        return levels.AMPERE_PLUS
    if not hasattr(levels, "SAME_COMPUTE_CAPABILITY"):
        raise CapabilityError(
            f"TensorRT {trt.__version__} has no hardware compatibility {wanted}; "
            "wanted 10.9 or later",
            hint="ampere_plus is in every release",
        )
    return cast("LaterHardwareCompatibilityLevel", levels).SAME_COMPUTE_CAPABILITY


def _target(trt: RtxModule, config: RtxBuilderConfig, wanted: list[str]) -> None:
    members = trt.ComputeCapability.__members__
    known = {_dotted(name): member for name, member in members.items() if _dotted(name)}
    unknown = [capability for capability in wanted if capability not in known]
    if unknown:
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} does not know compute capability {unknown[0]}",
            hint="it knows " + ", ".join(known),
        )
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        if not config.set_compute_capability(known[capability], index):
            raise EngineError(f"TensorRT-RTX refused compute capability {capability}")


def _dotted(member: str) -> str:
    """``SM120`` → ``12.0``; empty for members that name no architecture."""
    match = re.fullmatch(r"SM(\d+)(\d)", member)
    return f"{match[1]}.{match[2]}" if match else ""
