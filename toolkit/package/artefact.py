"""What of a bundle a backend runs: its graph, or its engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.artifacts import DimRange, Shapes
from toolkit.bundle import MANIFEST, Bundle, EngineRecord, open_bundle
from toolkit.errors import PackageError, ParityError
from toolkit.package.layout import GRAPH, PLAN
from toolkit.package.options import PackageOptions

__all__ = ["Artefact", "artefacts_of", "check_proof"]


@dataclass(frozen=True)
class Artefact:
    """One of them.

    Attributes:
        backend: Triton's name of what runs it.
        filename: The file in a version's folder that is opened.
        files: Every file of a version's folder, by name.
        shapes: The ranges of dimensions that it takes, over all profiles.
        usual: The ranges that a warm-up stays within: of a plan, its profile of most rows.
        profiles: How many optimization profiles it has; 0 for a graph.
        by_capability: The files for GPUs of one compute capability, such as ``9.0``.
    """

    backend: str
    filename: str
    files: Mapping[str, Path]
    shapes: Shapes
    usual: Shapes
    profiles: int = 0
    by_capability: Mapping[str, str] = field(default_factory=dict)


def check_proof(bundle: Bundle) -> None:
    """Refuse what does not compute what PyTorch computes.

    Raises:
        ParityError: If its proof failed.
    """
    if bundle.manifest.verdict != "passed":
        raise ParityError(
            f"{bundle.folder} failed its parity proof, so it is not packaged",
            hint=f"toolkit parity {bundle.folder} --explain names the node that goes wrong",
        )


def artefacts_of(bundle: Bundle, options: PackageOptions) -> tuple[list[Artefact], list[str]]:
    """What is packaged of it, and what the user should know.

    Raises:
        PackageError: If a plan is asked for and there is none, or none that Triton runs.
    """
    asked, engine = options.artifact, bundle.manifest.engine
    runs = engine is not None and engine.flavour == "tensorrt"
    notes = []
    if asked in {"plan", "both"} or options.engines:
        _check_engine(bundle)
    if asked == "auto" and engine is not None and not runs:
        notes.append(
            f"model.plan ({engine.flavour} {engine.version}) is left out, because no backend of"
            " Triton runs it: the graph is served"
        )
    planned = asked in {"plan", "both"} or (asked == "auto" and runs)
    found = [] if asked == "plan" or (asked == "auto" and runs) else [_graph(bundle)]
    if options.engines and not planned:
        raise PackageError(
            "plans of other GPUs are given, and the graph is what is packaged",
            hint="leave --artifact onnx out",
        )
    return [*found, *([_plans(bundle, options.engines)] if planned else [])], notes


def _check_engine(bundle: Bundle) -> EngineRecord:
    engine = bundle.manifest.engine
    if engine is None:
        raise PackageError(
            f"{bundle.folder} has no engine, wanted one",
            hint=f"toolkit build {bundle.folder} --target tensorrt, on the GPU that will serve it",
        )
    if engine.flavour != "tensorrt":
        raise PackageError(
            f"the engine of {bundle.folder} is one of {engine.flavour} {engine.version}, and Triton"
            " runs those of TensorRT only",
            hint="--artifact onnx serves the graph; toolkit build --target tensorrt makes a plan",
        )
    return engine


def _ranges(bundle: Bundle) -> Shapes:
    return {name: DimRange(*span) for name, span in bundle.manifest.shapes.items()}


def _graph(bundle: Bundle) -> Artefact:
    names = [name for name in bundle.manifest.files if name.split("/")[0].startswith(GRAPH)]
    files = {name: bundle.folder / name for name in (*names, MANIFEST)}
    shapes = _ranges(bundle)
    return Artefact("onnxruntime", GRAPH, files, shapes, shapes)


def _plans(bundle: Bundle, others: Sequence[Path]) -> Artefact:
    own = _check_engine(bundle)
    files = {PLAN: bundle.folder / PLAN, MANIFEST: bundle.folder / MANIFEST}
    names: dict[str, str] = {}
    if others:
        names = dict.fromkeys(own.compute_capabilities, PLAN)
    for folder in others:
        other = open_bundle(folder)
        check_proof(other)
        for capability in _fitting(bundle, other):
            if capability in names:
                raise PackageError(
                    f"two plans are for compute capability {capability}, the second in {folder}",
                    hint="give one bundle for each kind of GPU",
                )
            mark = f"sm{capability.replace('.', '')}"
            names[capability] = f"model_{mark}.plan"
            files[names[capability]] = folder / PLAN
            files[f"manifest_{mark}.json"] = folder / MANIFEST
    ranges: list[Shapes] = [
        {name: DimRange(*span) for name, span in each.items()} for each in own.ranges
    ]
    ranges = ranges or [_ranges(bundle)]
    return Artefact("tensorrt", PLAN, files, _union(ranges), _most_rows(ranges), len(ranges), names)


def _fitting(bundle: Bundle, other: Bundle) -> tuple[str, ...]:
    """The capabilities of the other's plan, which was built from the same graph."""
    engine, mine = _check_engine(other), bundle.manifest.engine
    if other.manifest.files.get(GRAPH) != bundle.manifest.files.get(GRAPH):
        raise PackageError(
            f"the plan of {other.folder} was built from another graph than that of {bundle.folder}",
            hint="copy the bundle to the other machine and run toolkit build there",
        )
    if mine is not None and (engine.profiles, engine.ranges) != (mine.profiles, mine.ranges):
        raise PackageError(
            f"the plan of {other.folder} has other optimization profiles than that of"
            f" {bundle.folder}",
            hint="build both with the same --profile",
        )
    return engine.compute_capabilities


def _union(ranges: Sequence[Shapes]) -> Shapes:
    first = ranges[0]
    return {
        name: DimRange(
            min(each[name].min for each in ranges),
            span.opt,
            max(each[name].max for each in ranges),
        )
        for name, span in first.items()
    }


def _most_rows(ranges: Sequence[Shapes]) -> Shapes:
    """The profile that takes the most, by its first dimension, which is the batch's."""
    return max(ranges, key=lambda each: next((span.max for span in each.values()), 0))
