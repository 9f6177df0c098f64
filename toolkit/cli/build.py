"""``toolkit build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from toolkit.artifacts import Engine

__all__ = ["build_command"]


def build_command(
    path: Annotated[Path, typer.Argument(help="A bundle or an .onnx file.", metavar="PATH")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o", "--out", help="The plan [default: into the bundle, or beside the .onnx file]."
        ),
    ] = None,
    target: Annotated[
        Optional[Literal["tensorrt", "tensorrt-rtx"]],  # noqa: UP045
        typer.Option(help="The builder [default: the bundle's target]."),
    ] = None,
    shape: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=MIN,OPT,MAX of a dimension [default: the bundle's shapes]."),
    ] = None,
    profile: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="PROFILE:NAME=MIN,OPT,MAX, an optimization profile and its own range."),
    ] = None,
    compute_capability: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="GPU architecture of a TensorRT-RTX engine, such as 8.9."),
    ] = None,
    optimization_level: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="0 builds fastest, 5 runs fastest [default: the builder's]."),
    ] = None,
    workspace: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Scratch memory of a layer, in MiB [default: the builder's]."),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let float32 products round their inputs to TF32.")
    ] = False,
    time_limit: Annotated[float, typer.Option(help="Seconds after which it is given up.")] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the engine of a bundle, or of an ONNX file.

    This finishes what toolkit export --target tensorrt leaves to a machine with a GPU. Options may
    be given several times. TensorRT-RTX builds without a GPU.
    """
    from toolkit.building import build_path, parse_profiles, parse_shapes, target_of
    from toolkit.cli.terminal import progress, show
    from toolkit.engine import EngineOptions

    options = EngineOptions(
        flavour=target_of(path, target),
        compute_capabilities=tuple(compute_capability or ()),
        workspace_bytes=None if workspace is None else workspace << 20,
        optimization_level=optimization_level,
        tf32=tf32,
        profiles=parse_profiles(profile or ()),
        time_limit=time_limit,
    )
    shapes = parse_shapes(shape) if shape else None
    with progress() as report:
        engine = build_path(path, options, out, shapes, report)
    show(_data(engine), as_json=json, tables=[_said(engine)])


def _data(engine: Engine) -> dict[str, object]:
    return {
        "plan": str(engine.path),
        "bytes": engine.path.stat().st_size,
        "flavour": engine.flavour,
        "version": engine.version,
        "compute_capabilities": list(engine.compute_capabilities),
        "layers": engine.layers,
        "profiles": list(engine.profiles),
        "seconds": engine.seconds,
        "inputs": {spec.name: str(spec) for spec in engine.inputs},
        "outputs": {spec.name: str(spec) for spec in engine.outputs},
    }


def _said(engine: Engine) -> str:
    profiles = f", profiles {', '.join(engine.profiles)}" if engine.profiles else ""
    return (
        f"{engine.path}: {engine.flavour} {engine.version}, {engine.layers} layers{profiles}, "
        f"{engine.path.stat().st_size:,} bytes, built in {engine.seconds:.1f} s. "
        "Not run: that needs an NVIDIA GPU."
    )
