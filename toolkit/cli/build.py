"""``toolkit build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

if TYPE_CHECKING:
    from toolkit.artifacts import Engine

__all__ = ["build_command"]

_MEMORY = "What the engine may use"
_PLAN = "What the plan can be used for"
_CACHE = "Timing cache"


def build_command(
    path: Annotated[Path, typer.Argument(help="A bundle or an .onnx file.", metavar="PATH")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o", "--out", help="The plan (default: into the bundle, or beside the .onnx file)."
        ),
    ] = None,
    target: Annotated[
        Optional[Literal["tensorrt", "tensorrt-rtx"]],  # noqa: UP045
        typer.Option(help="The builder (default: the bundle's target)."),
    ] = None,
    shape: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=MIN,OPT,MAX of a dimension (default: the bundle's shapes)."),
    ] = None,
    profile: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="PROFILE:NAME=MIN,OPT,MAX, an optimization profile and its own range."),
    ] = None,
    compute_capability: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="GPU architecture of a TensorRT-RTX engine, such as 8.9."),
    ] = None,
    plugin: Annotated[
        Optional[Literal["none", "aot", "library"]],  # noqa: UP045
        typer.Option(help="What chooses the experts of a TensorRT engine: see docs/plugin.md."),
    ] = None,
    optimization_level: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="0 builds fastest, 5 runs fastest (default: the builder's)."),
    ] = None,
    tf32: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--tf32/--no-tf32", help="Let float32 products round their inputs to TF32."),
    ] = None,
    sparse: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--sparse/--no-sparse", help="Use kernels for 2:4 sparse weights."),
    ] = None,
    memory: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="POOL=SIZE, such as workspace=512MiB; or tactic_dram, tactic_shared_memory.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    aux_streams: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="CUDA streams beside the caller's.", rich_help_panel=_MEMORY),
    ] = None,
    weight_streaming: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--weight-streaming/--no-weight-streaming",
            help="Let a runtime keep weights in the host's memory.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    refit: Annotated[
        Optional[Literal["none", "any", "identical"]],  # noqa: UP045
        typer.Option(help="Weights that can replace those in it.", rich_help_panel=_PLAN),
    ] = None,
    strip_weights: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--strip-weights/--keep-weights",
            help="Leave refittable weights out of the plan.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    version_compatible: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--version-compatible/--version-bound",
            help="Let later releases of the same major TensorRT run the plan.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    exclude_lean_runtime: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--exclude-lean-runtime/--with-lean-runtime",
            help="Leave the runtime out of a version-compatible plan.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    hardware_compatibility: Annotated[
        Optional[Literal["none", "ampere_plus", "same_compute_capability"]],  # noqa: UP045
        typer.Option(help="Other GPUs that run a TensorRT engine.", rich_help_panel=_PLAN),
    ] = None,
    profiling_verbosity: Annotated[
        Optional[Literal["none", "layer_names", "detailed"]],  # noqa: UP045
        typer.Option(help="What toolkit inspect can say of it.", rich_help_panel=_PLAN),
    ] = None,
    timing_cache: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="A file, or off (default: one in the user's cache folder).",
            metavar="FILE|off",
            rich_help_panel=_CACHE,
        ),
    ] = None,
    timing_cache_strict: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--timing-cache-strict/--timing-cache-lenient",
            help="Only read it; a kernel that is not in it is an error.",
            rich_help_panel=_CACHE,
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds after which it is given up.")] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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

    said: dict[str, Any] = {
        "compute_capabilities": tuple(compute_capability) if compute_capability else None,
        "profiles": parse_profiles(profile) if profile else None,
        "memory": parse_memory(memory) if memory else None,
        "optimization_level": optimization_level,
        "aux_streams": aux_streams,
        "tf32": tf32,
        "sparse": sparse,
        "refit": refit,
        "strip_weights": strip_weights,
        "weight_streaming": weight_streaming,
        "version_compatible": version_compatible,
        "exclude_lean_runtime": exclude_lean_runtime,
        "hardware_compatibility": hardware_compatibility,
        "profiling_verbosity": profiling_verbosity,
        "plugin": plugin,
        "timing_cache": _timing_cache(timing_cache),
        "timing_cache_strict": timing_cache_strict,
        "time_limit": time_limit,
    }
    stated = {name: value for name, value in said.items() if value is not None}
    options = options_for(path, target_of(path, target), stated)
    shapes = parse_shapes(shape) if shape else None
    with progress() as report:
        engine = build_path(path, options, out, shapes, report)
    show(_data(engine), as_json=json, tables=[_said(engine)])


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
