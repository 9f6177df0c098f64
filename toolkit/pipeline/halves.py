"""What a graph in half precision is proven by, beside its own run.

Rounding of half precision hides small defects, so two more graphs are looked at in float32:

* the plan exported in float32: is the computation PyTorch's, to float32 rounding;
* the very file that ships, *widened*: every half in it, casts included, becomes float32. It is
  held against PyTorch with the weights as they ship, computed exactly. What it may be off by is
  what rounding its constants costs, measured on the float32 export with weights and constants
  rounded the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import graphs
from toolkit.parity import ParityOptions, ParityReport, Structure, prove
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.reference import (
    baseline_runners,
    narrowed_runner,
    output_specs,
    reference_runner,
)
from toolkit.pipeline.runtimes import candidate_runners
from toolkit.pipeline.watched import Watching
from toolkit.progress import Progress
from toolkit.recipe import ExportSettings
from toolkit.runtime import Runner, RuntimeName

__all__ = ["WIDENED", "Halves", "float_structure", "half_precision", "prove_widened"]

WIDENED = ", widened to float32"
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_EPS_FLOAT32 = 2.0**-23
# The floor of the widened graph's error, as a share of the spacing of half precision: constants
# are rounded by half a spacing at most, and folded ones may be rounded once more.
_SHARE = 32


@dataclass(frozen=True)
class Halves:
    """What takes part beside the graph that ships.

    Attributes:
        structure: The float32 export and PyTorch in float32.
        reference: PyTorch with the weights as they ship, computed exactly; with its own weights
            where the graph is mixed, so that what rounding some of them costs is in the budget.
        baseline: The float32 export with its weights and constants rounded.
    """

    structure: Structure
    reference: Runner
    baseline: Runner


@contextmanager
def half_precision(
    plan: Plan, runtime: RuntimeName, exact: str, progress: Progress, watching: Watching
) -> Iterator[Halves | None]:
    """Export the plan in float32; None where float32 ships anyway.

    Args:
        plan: What the graph should compute.
        runtime: What runs graphs.
        exact: The precision of references.
        progress: Told of every model.
        watching: Shows which experts graphs choose.
    """
    precision = plan.recipe.export.arithmetic
    if precision == "float32":
        yield None
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        whole, graph = _in_float32(plan, folder, progress)
        rounded = folder / "rounded.onnx"
        graphs.round_constants(graph, rounded, precision)
        yield Halves(
            Structure(
                baselines=baseline_runners(whole, "float32", exact),
                candidates=candidate_runners(graph, watching, runtime, label=", in float32"),
            ),
            reference=_reference(plan, exact),
            baseline=watching.runner(rounded, runtime, ", constants rounded"),
        )


@contextmanager
def float_structure(
    plan: Plan, runtime: RuntimeName, exact: str, progress: Progress, watching: Watching
) -> Iterator[Structure]:
    """The plan exported in float32 and PyTorch in float32; arguments as for ``half_precision``."""
    with TemporaryDirectory() as name:
        whole, graph = _in_float32(plan, Path(name), progress)
        yield Structure(
            baselines=baseline_runners(whole, "float32", exact),
            candidates=candidate_runners(graph, watching, runtime, label=", in float32"),
        )


def _in_float32(plan: Plan, folder: Path, progress: Progress) -> tuple[Plan, Path]:
    """The plan in float32, exported and fused."""
    recipe = plan.recipe
    full = ExportSettings(opset=recipe.export.opset, experts=recipe.export.experts)
    whole = replace(plan, recipe=recipe.model_copy(update={"export": full}))
    exported = export_leaves(whole, folder, progress)
    graph = folder / "float32.onnx"
    fuse_leaves(whole, exported, graph, asked_passes(whole))
    return whole, graph


def _reference(plan: Plan, exact: str) -> Runner:
    """PyTorch with the weights as they ship; a mixed graph rounds some of them and others not."""
    if plan.recipe.export.mixed:
        return reference_runner(plan, exact)
    return narrowed_runner(plan, plan.recipe.export.arithmetic, exact)


def prove_widened(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    plan: Plan,
    graph: Path,
    halves: Halves,
    options: ParityOptions,
    runtime: RuntimeName,
    progress: Progress,
    watching: Watching,
) -> ParityReport:
    """Prove the weights and the structure of the very file, in float32."""
    tolerance = options.tolerance
    coarser = _EPS[plan.recipe.export.arithmetic] / _EPS_FLOAT32 / _SHARE
    floor = tolerance.floor_ulps * coarser
    with TemporaryDirectory() as name:
        wide = Path(name) / "widened.onnx"
        graphs.widen(graph, wide)
        return prove(
            reference=halves.reference,
            baselines=(),
            candidates=(),
            structure=Structure(
                baselines=(halves.baseline,),
                candidates=(watching.runner(wide, runtime, WIDENED),),
            ),
            cases=proof_cases(plan),
            outputs=output_specs(plan),
            options=replace(options, tolerance=replace(tolerance, floor_ulps=floor), notes=()),
            progress=progress,
        )
