"""Which nodes must stay in float32: each group of nodes lowered alone, its error measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

import graphs
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.bundle import Bundle, open_bundle
from toolkit.errors import BundleError
from toolkit.feeds import Case, cases
from toolkit.parity.compare import compare
from toolkit.progress import Progress, silent
from toolkit.runtime import OrtRunner, Outputs

__all__ = ["NodeGroup", "Sensitivity", "measure_sensitivity", "suggest"]

_NUMBERED = re.compile(r"^(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that stay or are lowered together: a numbered block of the model, or one module.

    Attributes:
        name: What the nodes' names start with.
        patterns: That match these nodes and no others, for ``export.keep_float32``.
        nodes: How many can be lowered.
        error: Root mean square over the output's, of the worst output, when only these are lowered.
    """

    name: str
    patterns: tuple[str, ...]
    nodes: int
    error: float


@dataclass(frozen=True)
class Sensitivity:
    """What was measured against the graph in float32.

    Attributes:
        groups: The most sensitive first.
        lowered: The error when all groups are lowered.
        max_error: The error that was allowed, if one was.
        keep: Patterns that keep the error within it; None if none do, or no error was given.
        kept: The error with them.
        cases: How many inputs.
    """

    groups: tuple[NodeGroup, ...]
    lowered: float
    max_error: float | None
    keep: tuple[str, ...] | None
    kept: float | None
    cases: int


def measure_sensitivity(
    folder: Path, progress: Progress = silent, *, max_error: float | None = None, count: int = 8
) -> Sensitivity:
    """Lower one group of nodes of a float32 bundle at a time to float16, in ONNX Runtime.

    Every group takes a copy of the graph, one at a time, and a run of every case.

    Args:
        folder: The bundle.
        progress: Told of every group.
        max_error: The error that is allowed; asks for the nodes to keep.
        count: How many cases of the proof to run, the most telling first.

    Raises:
        BundleError: If the folder is no bundle, or its graph is in half precision already.
        graphs.GraphError: If the graph cannot be lowered.
    """
    bundle = open_bundle(folder)
    if any(array.dtype.itemsize == 2 for array in graphs.Weights(bundle.model).values()):
        raise BundleError(
            f"{folder} holds weights in half precision already",
            hint="export the recipe with precision: float32 and measure that",
        )
    with TemporaryDirectory() as work:
        trial = _Trial(bundle, _cases(bundle, count), Path(work) / "lowered.onnx")
        lowered, sites = trial.error(graphs.MixedPrecision())
        found: list[NodeGroup] = []
        groups = _groups(sites)
        for name, patterns in groups.items():
            progress("lower one group at a time", len(found), len(groups))
            error, alone = trial.error(graphs.MixedPrecision(only=patterns))
            found.append(NodeGroup(name, patterns, len(alone), error))
        ranked = sorted(found, key=lambda group: -group.error)
        keep, kept = None, None
        if max_error is not None:
            keep, kept = suggest(ranked, lowered, max_error, trial.error)
    return Sensitivity(tuple(ranked), lowered, max_error, keep, kept, len(trial.cases))


class _Trial:
    def __init__(self, bundle: Bundle, chosen: Sequence[Case], path: Path) -> None:
        self.model, self.cases, self._path = bundle.model, chosen, path
        self._right = self._run(bundle.model)

    def error(self, step: graphs.MixedPrecision) -> tuple[float, tuple[str, ...]]:
        """Of the graph after the pass, and the nodes that were lowered."""
        (report,) = graphs.rewrite(self.model, [step], self._path)
        squares: dict[str, list[float]] = {}
        for right, found in zip(self._right, self._run(self._path), strict=True):
            for name, wanted in right.items():
                if wanted.size and wanted.dtype.kind == "f":
                    deviation = compare(wanted, found[name], "values", "float16")
                    rms = float("inf") if deviation.mismatches else deviation.rms
                    squares.setdefault(name, []).append(rms**2)
        worst = max((sqrt(sum(s) / len(s)) for s in squares.values()), default=0.0)
        return worst, report.sites

    def _run(self, path: Path) -> list[Outputs]:
        with OrtRunner(path) as run:
            return [run(case.feeds()) for case in self.cases]


def _cases(bundle: Bundle, count: int) -> list[Case]:
    """Those of the proof that run the graph once; real inputs lie with the models, not here."""
    manifest = bundle.manifest
    inputs = [
        TensorSpec(
            r.name,
            r.dtype,
            r.shape,
            low=r.low,
            high=r.high,
            role="mask" if r.role == "mask" else "values",
        )
        for r in manifest.inputs
    ]
    shapes = {name: DimRange(*sizes) for name, sizes in manifest.shapes.items()}
    return list(cases(inputs, shapes, seed=manifest.seed, count=count))[:count]


def _groups(sites: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Names of groups with the patterns of their nodes, in graph order."""
    found: dict[str, dict[str, None]] = {}
    for site in sites:
        place, slash, _ = site.rpartition("/")
        member, between, module = place.rpartition("/")
        numbered = _NUMBERED.match(module)
        name = f"{member}{between}{numbered[1] if numbered else module}" if slash else site
        # A block and what is inside it; "layer.1.*" is not "layer.10".
        rest = "" if not slash else "/*" if place == name else ".*"
        found.setdefault(name, {})[escape(name) + rest] = None
    return {name: tuple(patterns) for name, patterns in found.items()}


def suggest(
    ranked: Sequence[NodeGroup],
    lowered: float,
    allowed: float,
    error: Callable[[graphs.MixedPrecision], tuple[float, tuple[str, ...]]],
) -> tuple[tuple[str, ...] | None, float | None]:
    """The fewest of the most sensitive groups that bring the error within what is allowed.

    Returns:
        Their patterns and the error with them; None twice where nothing could be lowered.
    """
    if lowered <= allowed:
        return (), lowered
    low, high = 1, len(ranked) - 1  # with all of them kept there is nothing left to lower
    best: tuple[tuple[str, ...] | None, float | None] = (None, None)
    while low <= high:
        middle = (low + high) // 2
        keep = tuple(pattern for group in ranked[:middle] for pattern in group.patterns)
        found, _ = error(graphs.MixedPrecision(keep_float32=keep))
        if found <= allowed:
            best, high = (keep, found), middle - 1
        else:
            low = middle + 1
    return best
