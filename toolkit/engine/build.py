"""Build an engine from an ONNX file and put its plan in place."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from toolkit.artifacts import Engine, OnnxModel, Shapes, TensorSpec
from toolkit.engine.choices import SWITCHES
from toolkit.engine.comparing import held_against, opened_notes
from toolkit.engine.diagnosis import with_origins
from toolkit.engine.messages import CacheUse, Request, Result, Tensor
from toolkit.engine.options import EngineOptions
from toolkit.engine.plugging import prepare
from toolkit.engine.process import BuildProcess
from toolkit.engine.requirements import device_capability, require
from toolkit.engine.timing import cache_file
from toolkit.errors import EngineError
from toolkit.progress import Progress, silent

__all__ = ["build_engine", "check_profiles"]


def build_engine(
    model: OnnxModel | Path,
    shapes: Shapes,
    options: EngineOptions,
    out: Path,
    progress: Progress = silent,
) -> Engine:
    """Build a plan from an ONNX file (external data included) and write it to ``out``.

    The builder runs in a process of its own, so that its crash is an error here. The network is
    strongly typed: the precision of each layer is the one in the ONNX graph. What the parser made
    of it is read back and held against the graph; opening the finished plan, and running it, needs
    a GPU, for either flavour.

    Args:
        model: The exported model, or the path of an ONNX file.
        shapes: The range of each symbolic dimension. Each of the options' profiles is these with
            its own ranges in their place; without any, they are the one profile.
        options: Flavour, architectures and limits.
        out: The plan's path; written beside it first and then renamed.
        progress: Told of the builder's phases and their steps.

    Raises:
        CapabilityError: If this machine lacks the package or the GPU that the flavour needs, or
            what the plugin needs.
        GraphError: If a plugin is asked for and no operator, or none that it takes, is there.
        EngineError: If the graph is refused, or the builder crashes or exceeds the time limit.
    """
    require(options.flavour)
    check_profiles(options, shapes)
    source = model.path if isinstance(model, OnnxModel) else model
    if not source.is_file():
        raise EngineError(f"there is no ONNX file at {source}")
    started = time.monotonic()
    with _sibling(out) as plan, tempfile.TemporaryDirectory(dir=plan.parent) as folder:
        ready = prepare(source, options.plugin, Path(folder) / "model.onnx")
        request = _request(ready, shapes, options, plan)
        try:
            result = BuildProcess(request, options.time_limit, progress).run()
            assert result["event"] == "result"
        except EngineError as error:
            raise with_origins(error, ready) from error
        notes = held_against(ready, request["profiles"], result["network"])
        notes += opened_notes(plan, options, result)
        plan.replace(out)
    ranges = tuple({**shapes, **own} for own in options.profiles.values() or ({},))
    return replace(_engine(out, result, options, time.monotonic() - started, notes), ranges=ranges)


def check_profiles(options: EngineOptions, shapes: Shapes) -> None:
    """What is proven is the range under shapes, so a profile must lie within.

    Raises:
        EngineError: If one does not, or names another dimension.
    """
    for profile, ranges in options.profiles.items():
        for name, span in ranges.items():
            whole = shapes.get(name)
            if whole is None:
                raise EngineError(
                    f"profile {profile!r} has a range for {name!r}, which is no dimension",
                    hint="the dimensions are: " + (", ".join(shapes) or "none"),
                )
            if span.min < whole.min or span.max > whole.max:
                raise EngineError(
                    f"profile {profile!r} has {name} from {span.min} to {span.max}, "
                    f"wanted within {whole.min} to {whole.max}",
                    hint=f"widen {name} under shapes, which is what the proof covers",
                )


@contextmanager
def _sibling(out: Path) -> Iterator[Path]:
    """A new file beside ``out``, removed unless it was renamed.

    Raises:
        EngineError: If the folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.absolute().parent)
    except OSError as error:
        raise EngineError(f"cannot write {out}: {error.strerror}") from error
    os.close(handle)
    path = Path(name)
    path.chmod(0o644)  # mkstemp's 0600 is for secrets; a plan is served by another user
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _request(source: Path, shapes: Shapes, options: EngineOptions, plan: Path) -> Request:
    return {
        "job": "build",
        "flavour": options.flavour,
        "model": str(source.absolute()),
        "plan": str(plan.absolute()),
        "profiles": [
            {name: (dim.min, dim.opt, dim.max) for name, dim in {**shapes, **ranges}.items()}
            for ranges in options.profiles.values() or ({},)
        ],
        "compute_capabilities": list(options.compute_capabilities),
        "memory": {str(pool): size for pool, size in options.memory.items()},
        "optimization_level": options.optimization_level,
        "aux_streams": options.aux_streams,
        "tf32": options.tf32,
        "switches": [name for name in SWITCHES if getattr(options, name)],
        "refit": options.refit,
        "hardware_compatibility": options.hardware_compatibility,
        "profiling_verbosity": options.profiling_verbosity,
        "plugin": options.plugin,
        "timing_cache": cache_file(options),
        "timing_cache_strict": options.timing_cache_strict,
        "device": device_capability() if options.plugin != "none" else None,
    }


def _engine(
    out: Path, result: Result, options: EngineOptions, seconds: float, notes: list[str]
) -> Engine:
    capabilities = options.compute_capabilities
    if options.flavour == "tensorrt":
        capabilities = (device_capability() or "unknown",)
    network = result["network"]
    return Engine(
        path=out,
        flavour=options.flavour,
        version=result["version"],
        compute_capabilities=capabilities,
        layers=network["layers"],
        seconds=seconds,
        inputs=tuple(_spec(tensor) for tensor in network["inputs"]),
        outputs=tuple(_spec(tensor) for tensor in network["outputs"]),
        profiles=tuple(options.profiles),
        kinds=network["kinds"],
        dtypes=network["dtypes"],
        conditionals=network["conditionals"],
        options=options.stated(),
        carries_plugins=result["carries_plugins"],
        timing_cache=_cache(result["timing_cache"]),
        notes=(*result["notes"], *notes, *_plugin_note(options, result)),
        plugin=options.plugin,
    )


def _plugin_note(options: EngineOptions, result: Result) -> Iterator[str]:
    if options.plugin == "library":
        yield (
            "the plan carries the plugin library: whoever runs it has to allow its code "
            "(engine_host_code_allowed)"
            if result["carries_plugins"]
            else "the plugin library registers itself, so it is not in the plan: load it first"
        )


def _cache(use: CacheUse | None) -> tuple[str, int, int] | None:
    return (use["path"], use["before"], use["after"]) if use else None


def _spec(tensor: Tensor) -> TensorSpec:
    shape = (
        f"{tensor['name']}_{axis}" if dim is None else dim
        for axis, dim in enumerate(tensor["shape"])
    )
    return TensorSpec(tensor["name"], tensor["dtype"], tuple(shape))
