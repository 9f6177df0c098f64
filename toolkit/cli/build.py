"""``toolkit build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import build_options as o

if TYPE_CHECKING:
    from toolkit.artifacts import Engine

__all__ = ["build_command"]


def build_command(
    path: o.PathArgument,
    out: o.Out = None,
    target: o.Target = None,
    shape: o.Shape = None,
    profile: o.Profile = None,
    compute_capability: o.ComputeCapability = None,
    plugin: o.Plugin = None,
    optimization_level: o.OptimizationLevel = None,
    tf32: o.Tf32 = None,
    sparse: o.Sparse = None,
    memory: o.Memory = None,
    aux_streams: o.AuxStreams = None,
    weight_streaming: o.WeightStreaming = None,
    refit: o.Refit = None,
    strip_weights: o.StripWeights = None,
    version_compatible: o.VersionCompatible = None,
    exclude_lean_runtime: o.ExcludeLeanRuntime = None,
    hardware_compatibility: o.HardwareCompatibility = None,
    profiling_verbosity: o.ProfilingVerbosity = None,
    timing_cache: o.TimingCache = None,
    timing_cache_strict: o.TimingCacheStrict = None,
    time_limit: o.TimeLimit = 600.0,
    json: o.Json = False,
) -> None:
    """Build the engine of a bundle, or of an ONNX file.

    This finishes what toolkit export --target tensorrt leaves to a machine with a GPU. What is not
    said is as the bundle's recipe says under engine. TensorRT-RTX builds without a GPU.
    """
    from toolkit.building import (
        build_path,
        options_for,
        parse_memory,
        parse_profiles,
        parse_shapes,
        target_of,
    )
    from toolkit.cli.terminal import progress, show

    stated = _stated(
        compute_capabilities=tuple(compute_capability) if compute_capability else None,
        profiles=parse_profiles(profile) if profile else None,
        memory=parse_memory(memory) if memory else None,
        optimization_level=optimization_level, aux_streams=aux_streams, tf32=tf32, sparse=sparse,
        refit=refit, strip_weights=strip_weights, weight_streaming=weight_streaming,
        version_compatible=version_compatible, exclude_lean_runtime=exclude_lean_runtime,
        hardware_compatibility=hardware_compatibility, profiling_verbosity=profiling_verbosity,
        plugin=plugin, timing_cache=_timing_cache(timing_cache),
        timing_cache_strict=timing_cache_strict, time_limit=time_limit,
    )  # fmt: skip
    options = options_for(path, target_of(path, target), stated)
    shapes = parse_shapes(shape) if shape else None
    with progress() as report:
        engine = build_path(path, options, out, shapes, report)
    show(_data(engine), as_json=json, tables=[_said(engine)])


def _stated(**said: Any) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _timing_cache(said: str | None) -> Path | str | None:
    return said if said in {None, "off", "auto"} else Path(said)


def _data(engine: Engine) -> dict[str, object]:
    return {
        "plan": str(engine.path),
        "bytes": engine.path.stat().st_size,
        "flavour": engine.flavour,
        "version": engine.version,
        "compute_capabilities": list(engine.compute_capabilities),
        "layers": engine.layers,
        "layers_by_type": dict(engine.kinds),
        "outputs_by_dtype": dict(engine.dtypes),
        "conditionals": engine.conditionals,
        "profiles": list(engine.profiles),
        "options": dict(engine.options),
        "carries_plugins": engine.carries_plugins,
        "timing_cache": _cache(engine),
        "notes": list(engine.notes),
        "seconds": engine.seconds,
        "inputs": {spec.name: str(spec) for spec in engine.inputs},
        "outputs": {spec.name: str(spec) for spec in engine.outputs},
    }


def _cache(engine: Engine) -> dict[str, object] | None:
    if engine.timing_cache is None:
        return None
    path, before, after = engine.timing_cache
    return {"path": path, "bytes_before": before, "bytes_after": after}


def _said(engine: Engine) -> str:
    profiles = f", profiles {', '.join(engine.profiles)}" if engine.profiles else ""
    first = (
        f"{engine.path}: {engine.flavour} {engine.version}, {engine.layers} layers{profiles}, "
        f"{engine.path.stat().st_size:,} bytes, built in {engine.seconds:.1f} s. "
        "Not run: that needs an NVIDIA GPU."
    )
    lines = [first]
    if engine.timing_cache is not None:
        path, before, after = engine.timing_cache
        lines.append(f"timing cache {path}: {before:,} bytes before, {after:,} after")
    return "\n".join([*lines, *(f"note: {note}" for note in engine.notes)])
