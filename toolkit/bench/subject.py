"""What is measured: a bundle or an ONNX file, with what its inputs may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphs import describe
from toolkit.artifacts import DTYPES, DimRange, Shapes, TensorSpec
from toolkit.bench.sessions import Job
from toolkit.bundle import is_bundle, open_bundle
from toolkit.errors import ToolkitError
from toolkit.feeds import make_feeds

__all__ = ["Subject", "job_of", "member_subject", "open_subject"]


@dataclass(frozen=True)
class Subject:
    """A graph.

    Attributes:
        name: What it is called.
        path: The ONNX file.
        inputs: Its inputs, with the ranges of their values where a manifest has them.
        outputs: Names of its outputs.
        shapes: Ranges of its dimensions; empty where no manifest says them.
        bundle: The bundle's folder, if it is one.
    """

    name: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    shapes: Shapes
    bundle: Path | None = None


def open_subject(path: Path) -> Subject:
    """A bundle, or an ONNX file; one in a bundle is the bundle.

    Raises:
        ToolkitError: If it is neither, or has an input that cannot be drawn.
        IntegrityError: If the bundle's files differ from its manifest.
        graphs.GraphError: If the ONNX file cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    if is_bundle(folder) and (path.is_dir() or path.name == "model.onnx"):
        bundle = open_bundle(folder)
        manifest = bundle.manifest
        return Subject(
            folder.resolve().name,
            bundle.model,
            tuple(record.spec() for record in manifest.inputs),
            tuple(record.name for record in manifest.outputs),
            {name: DimRange(*span) for name, span in manifest.shapes.items()},
            folder,
        )
    if not path.is_file() or path.suffix != ".onnx":
        kind = "a folder without a manifest" if path.is_dir() else "no ONNX file"
        raise ToolkitError(
            f"{path} is {kind if path.exists() else 'not there'}, wanted a bundle or an .onnx file",
            hint="toolkit export RECIPE -o DIR makes a bundle",
        )
    return member_subject(path.stem, path)


def member_subject(name: str, path: Path) -> Subject:
    """An ONNX file under a name of its own.

    Raises:
        ToolkitError: If it has an input that cannot be drawn.
        graphs.GraphError: If it cannot be read.
    """
    found = describe(path)
    inputs = tuple(_spec(path, t.name, t.dtype, t.shape) for t in found.inputs)
    return Subject(name, path, inputs, tuple(t.name for t in found.outputs), {})


def _spec(path: Path, name: str, dtype: str, shape: Sequence[Any] | None) -> TensorSpec:
    if shape is None or dtype not in DTYPES:
        raise ToolkitError(
            f"input {name!r} of {path.name} is {dtype} without a shape that is known"
        )
    dims = tuple(f"{name}_{axis}" if dim is None else dim for axis, dim in enumerate(shape))
    mask = name.endswith("attention_mask")  # Hugging Face's name; a manifest says what is one
    return TensorSpec(name, dtype, dims, role="mask" if mask else "values")


def job_of(
    subject: Subject,
    dims: Mapping[str, int],
    seed: int,
    given: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Job:
    """The graph with seeded inputs, without padding.

    Args:
        subject: The graph.
        dims: The size of every named dimension.
        seed: Of all that is drawn.
        given: Arrays of another graph; an input of the same name, type and shape takes the same.

    Raises:
        ToolkitError: If a dimension has no size.
    """
    missing = {name for spec in subject.inputs for name in spec.symbols} - dims.keys()
    if missing:
        raise ToolkitError(
            f"{subject.name} has dimensions without a size: {', '.join(sorted(missing))}",
            hint="--shape " + ",".join(f"{name}=SIZE" for name in sorted(missing | dims.keys())),
        )
    feeds = make_feeds(subject.inputs, dims, np.random.default_rng(seed), "full")
    for name, array in (given or {}).items():
        own = feeds.get(name)
        if own is not None and (own.dtype, own.shape) == (array.dtype, array.shape):
            feeds[name] = array
    return Job(subject.path.absolute(), feeds)
