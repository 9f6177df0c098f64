"""The options of ``toolkit build``, as types that typer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

__all__ = [
    "AuxStreams",
    "ComputeCapability",
    "ExcludeLeanRuntime",
    "HardwareCompatibility",
    "Json",
    "Memory",
    "OptimizationLevel",
    "Out",
    "PathArgument",
    "Plugin",
    "Profile",
    "ProfilingVerbosity",
    "Refit",
    "Shape",
    "Sparse",
    "StripWeights",
    "Target",
    "Tf32",
    "TimeLimit",
    "TimingCache",
    "TimingCacheStrict",
    "VersionCompatible",
    "WeightStreaming",
]

_MEMORY = "What the engine may use"
_PLAN = "What the plan can be used for"
_CACHE = "Timing cache"

PathArgument = Annotated[Path, typer.Argument(help="A bundle or an .onnx file.", metavar="PATH")]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "-o", "--out", help="The plan [default: into the bundle, or beside the .onnx file]."
    ),
]
Target = Annotated[
    Optional[Literal["tensorrt", "tensorrt-rtx"]],  # noqa: UP045
    typer.Option(help="The builder [default: the bundle's target]."),
]
Shape = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="NAME=MIN,OPT,MAX of a dimension [default: the bundle's shapes]."),
]
Profile = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="PROFILE:NAME=MIN,OPT,MAX, an optimization profile and its own range."),
]
ComputeCapability = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="GPU architecture of a TensorRT-RTX engine, such as 8.9."),
]
Plugin = Annotated[
    Optional[Literal["none", "aot", "library"]],  # noqa: UP045
    typer.Option(help="What chooses the experts of a TensorRT engine: see docs/plugin.md."),
]
OptimizationLevel = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="0 builds fastest, 5 runs fastest [default: the builder's]."),
]
Tf32 = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--tf32/--no-tf32", help="Let float32 products round their inputs to TF32."),
]
Sparse = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--sparse/--no-sparse", help="Use kernels for 2:4 sparse weights."),
]
Memory = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="POOL=SIZE, such as workspace=512MiB; or tactic_dram, tactic_shared_memory.",
        rich_help_panel=_MEMORY,
    ),
]
AuxStreams = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="CUDA streams beside the caller's.", rich_help_panel=_MEMORY),
]
WeightStreaming = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--weight-streaming/--no-weight-streaming",
        help="Let a runtime keep weights in the host's memory.",
        rich_help_panel=_MEMORY,
    ),
]
Refit = Annotated[
    Optional[Literal["none", "any", "identical"]],  # noqa: UP045
    typer.Option(help="Weights that can replace those in it.", rich_help_panel=_PLAN),
]
StripWeights = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--strip-weights/--keep-weights",
        help="Leave refittable weights out of the plan.",
        rich_help_panel=_PLAN,
    ),
]
VersionCompatible = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--version-compatible/--version-bound",
        help="Let later releases of the same major TensorRT run the plan.",
        rich_help_panel=_PLAN,
    ),
]
ExcludeLeanRuntime = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--exclude-lean-runtime/--with-lean-runtime",
        help="Leave the runtime out of a version-compatible plan.",
        rich_help_panel=_PLAN,
    ),
]
HardwareCompatibility = Annotated[
    Optional[Literal["none", "ampere_plus", "same_compute_capability"]],  # noqa: UP045
    typer.Option(help="Other GPUs that run a TensorRT engine.", rich_help_panel=_PLAN),
]
ProfilingVerbosity = Annotated[
    Optional[Literal["none", "layer_names", "detailed"]],  # noqa: UP045
    typer.Option(help="What toolkit inspect can say of it.", rich_help_panel=_PLAN),
]
TimingCache = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="A file, or off [default: one in the user's cache folder].",
        metavar="FILE|off",
        rich_help_panel=_CACHE,
    ),
]
TimingCacheStrict = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--timing-cache-strict/--timing-cache-lenient",
        help="Only read it; a kernel that is not in it is an error.",
        rich_help_panel=_CACHE,
    ),
]
TimeLimit = Annotated[float, typer.Option(help="Seconds after which it is given up.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
