"""Which pass breaks a graph: the proof after fusing, and again after each pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import graphs
from toolkit.parity import ParityReport
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves, is_asked
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.progress import Progress, silent
from toolkit.recipe import Recipe

__all__ = ["Bisection", "Stage", "bisect_passes"]


@dataclass(frozen=True)
class Stage:
    """The graph after fusing (``fuse``) or after one pass.

    Attributes:
        name: ``fuse`` or the pass.
        sites: How many nodes or initializers the pass rewrote.
        verdict: ``not run`` behind the first failure.
        detail: What failed, or nothing.
    """

    name: str
    sites: int
    verdict: Literal["pass", "fail", "not run"]
    detail: str = ""


@dataclass(frozen=True)
class Bisection:
    """The stages in order; ``culprit`` is the first that fails its proof, if one does."""

    stages: tuple[Stage, ...]

    @property
    def culprit(self) -> Stage | None:
        """The first stage after which the proof fails."""
        return next((stage for stage in self.stages if stage.verdict == "fail"), None)


def bisect_passes(recipe: Recipe, folder: Path, progress: Progress = silent) -> Bisection:
    """Build ``recipe`` step by step and prove every step; nothing is published.

    Args:
        recipe: The recipe.
        folder: What its paths are read against.
        progress: Told of every model and every proof.

    Raises:
        ToolkitError: If a model cannot be exported.
        graphs.GraphError: If graphs cannot be fused, or a pass cannot work on the graph.
    """
    plan = make_plan(recipe, folder)
    with TemporaryDirectory() as work:
        exported = export_leaves(plan, Path(work), progress)
        first = Path(work) / "fuse.onnx"
        fuse_leaves(plan, exported, first, ())
        stages: list[Stage] = []
        for path, name, sites in _steps(first, plan):
            if stages and stages[-1].verdict != "pass":
                stages.append(Stage(name, sites, "not run"))
                continue
            report = prove_plan(plan, path, _named(progress, name))
            stages.append(Stage(name, sites, "pass" if report.passed else "fail", _why(report)))
    return Bisection(tuple(stages))


def _steps(first: Path, plan: Plan) -> Iterator[tuple[Path, str, int]]:
    """Each graph as it is made, with the number of places that were rewritten.

    What every export looks for, as experts, is a step where there was some.
    """
    yield first, "fuse", 0
    current = first
    for number, step in enumerate(asked_passes(plan)):
        following = current.with_name(f"{number}.onnx")
        (report,) = graphs.rewrite(current, [step], following)
        if report.sites or is_asked(plan, step):
            current = following
            yield current, step.name, len(report.sites)


def _named(progress: Progress, stage: str) -> Progress:
    return lambda what, done, total: progress(f"after {stage}: {what}", done, total)


def _why(report: ParityReport) -> str:
    failures = report.failures()
    if not failures:
        return ""
    verdict, check = failures[0]
    return f"{verdict.output} of {verdict.candidate}, {check.gate}: {check.detail}"
