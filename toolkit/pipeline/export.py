"""The main job: a recipe becomes a bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from graphs import PassReport
from toolkit.artifacts import Engine, OnnxModel
from toolkit.bundle import ExpertRecord, Manifest, is_bundle, publishing
from toolkit.checkpoint import check_finite
from toolkit.engine import EngineOptions, build_engine, require
from toolkit.export import adopt_onnx
from toolkit.parity import ParityReport
from toolkit.pipeline.experts import settle_experts
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.pipeline.tokenizer import copy_tokenizer
from toolkit.pipeline.writing import write_record
from toolkit.progress import Progress, silent
from toolkit.recipe import Recipe
from toolkit.sources import Part

__all__ = ["Outcome", "export_recipe", "publish_path"]


@dataclass(frozen=True)
class Outcome:
    """What an export made.

    Attributes:
        folder: The bundle, or after a failed proof ``<out>.failed`` with the evidence.
        manifest: What it holds.
        report: The proof.
        engine: The engine beside the graph, if one was built.
        passes: What each pass over the graph did, in order.
    """

    folder: Path
    manifest: Manifest
    report: ParityReport
    engine: Engine | None
    passes: tuple[PassReport, ...] = ()


def publish_path(recipe: Path, out: Path | None, part: Part | None = None) -> Path:
    """Where the bundle goes: as asked, or a folder named after the recipe and its part, here."""
    return out if out is not None else Path(recipe.stem + (f"-{part}" if part else ""))


def export_recipe(recipe: Recipe, folder: Path, out: Path, progress: Progress = silent) -> Outcome:
    """Build ``recipe``, whose paths are read against ``folder``, and publish the bundle at ``out``.

    After a failed proof nothing is published at ``out``: what was made lies in ``<out>.failed``.

    Raises:
        ToolkitError: Whatever stage fails says what it found; nothing is left behind.
        graphs.GraphError: If graphs cannot be fused or rewritten.
    """
    if recipe.target != "onnx":
        require(recipe.target)
    with publishing(out) as draft:
        plan = make_plan(recipe, folder)
        _check_weights(plan, progress)
        plan, model, passes, experts = _build_graph(plan, draft.folder, progress)
        report = prove_plan(plan, model.path, progress)
        engine = _build_engine(plan, model, draft.folder, progress) if report.passed else None
        copy_tokenizer(plan, draft.folder)
        manifest = write_record(plan, model, report, engine, passes, draft.folder, out, experts)
        failed = out.with_name(out.name + ".failed")
        if not report.passed:
            draft.destination = failed.absolute()
        elif is_bundle(failed):
            shutil.rmtree(failed)  # evidence about a bundle that is now replaced
    return Outcome(out if report.passed else failed, manifest, report, engine, passes)


def _check_weights(plan: Plan, progress: Progress) -> None:
    for name, leaf in plan.leaves():
        checkpoint = leaf.checkpoint()
        if checkpoint is not None:
            progress(f"check weights of {name}", 0, 0)
            check_finite(checkpoint)


def _build_graph(
    plan: Plan, folder: Path, progress: Progress
) -> tuple[Plan, OnnxModel, tuple[PassReport, ...], ExpertRecord | None]:
    """Export every model, fuse, run the passes, and write ``model.onnx``.

    The plan that comes back says how experts were lowered.
    """
    work = folder / ".work"
    work.mkdir()
    exported = export_leaves(plan, work, progress)
    plan, experts = settle_experts(plan, exported.values(), progress)
    progress("fuse into one graph", 0, 1)
    passes = fuse_leaves(plan, exported, folder / "model.onnx", asked_passes(plan))
    progress("fuse into one graph", 1, 1)
    shutil.rmtree(work)
    found = adopt_onnx(folder / "model.onnx")
    by_name = {spec.name: spec for spec in plan.inputs}
    inputs = tuple(replace(by_name[spec.name], dtype=spec.dtype) for spec in found.inputs)
    model = OnnxModel(found.path, inputs, found.outputs, found.opset)
    return plan, model, tuple(passes), experts


def _build_engine(plan: Plan, model: OnnxModel, folder: Path, progress: Progress) -> Engine | None:
    target = plan.recipe.target
    if target == "onnx":
        return None
    options = EngineOptions(
        flavour=target,
        compute_capabilities=tuple(plan.recipe.engine.compute_capabilities),
        plugin=plan.recipe.engine.plugin,
    )
    return build_engine(
        model,
        plan.shapes,
        options,
        folder / "model.plan",
        lambda what, done, total: progress(
            f"build engine: {what[:1].lower()}{what[1:]}", done, total
        ),
    )
