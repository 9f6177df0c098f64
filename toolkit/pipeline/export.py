"""The main job: a recipe becomes a bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from graphs import PassReport
from toolkit.artifacts import Engine, OnnxModel
from toolkit.bundle import ExpertRecord, Manifest, is_bundle, publishing
from toolkit.checkpoint import check_finite
from toolkit.engine import (
    build_engine,
    check_profiles,
    missing,
    refuse,
    require,
)
from toolkit.errors import CapabilityError
from toolkit.export import adopt_onnx
from toolkit.parity import ParityReport
from toolkit.pipeline.distilled import train_students
from toolkit.pipeline.experts import settle_experts
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.labels import write_labels
from toolkit.pipeline.neurons import settle_neurons
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.pipeline.quantised import quantise_graph
from toolkit.pipeline.tokenizer import copy_tokenizer
from toolkit.pipeline.writing import write_record
from toolkit.progress import Progress, silent
from toolkit.recipe import Recipe, engine_options
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
        unbuilt: Why the engine that was asked for is not there, where this machine cannot build
            it; the bundle is complete but for it.
    """

    folder: Path
    manifest: Manifest
    report: ParityReport
    engine: Engine | None
    passes: tuple[PassReport, ...] = ()
    unbuilt: CapabilityError | None = None


def publish_path(recipe: Path, out: Path | None, part: Part | None = None) -> Path:
    """Where the bundle goes: as asked, or a folder named after the recipe and its part, here."""
    return out if out is not None else Path(recipe.stem + (f"-{part}" if part else ""))


def export_recipe(recipe: Recipe, folder: Path, out: Path, progress: Progress = silent) -> Outcome:
    """Build ``recipe``, whose paths are read against ``folder``, and publish the bundle at ``out``.

    After a failed proof nothing is published at ``out``: what was made lies in ``<out>.failed``.
    Where this machine cannot build the engine that is asked for, everything else is done and
    published; the outcome says what is left.

    Raises:
        ToolkitError: Whatever stage fails says what it found; nothing is left behind.
        graphs.GraphError: If graphs cannot be fused or rewritten.
    """
    with publishing(out) as draft:
        train_students(recipe, folder, progress)
        plan = make_plan(recipe, folder)
        if recipe.target != "onnx":
            check_profiles(engine_options(recipe.engine, recipe.target), plan.shapes)
        _check_weights(plan, progress)
        plan, model, passes, experts = _build_graph(plan, draft.folder, progress)
        plan, skipped, neurons = settle_neurons(plan, model.path, progress)
        passes += skipped
        quantised = quantise_graph(plan, model.path, progress)
        if recipe.target != "onnx":
            refuse(model.path, recipe.target, tuple(plan.shapes))
        report = prove_plan(plan, model.path, progress)
        unbuilt = _unbuilt(plan, out) if report.passed else None
        build = report.passed and unbuilt is None
        engine = _build_engine(plan, model, draft.folder, progress) if build else None
        copy_tokenizer(plan, draft.folder)
        write_labels(plan, draft.folder)
        manifest = write_record(
            plan, model, report, engine, passes, draft.folder, out, experts, neurons, quantised
        )
        failed = out.with_name(out.name + ".failed")
        if not report.passed:
            draft.destination = failed.absolute()
        elif is_bundle(failed):
            shutil.rmtree(failed)  # evidence about a bundle that is now replaced
    folder = out if report.passed else failed
    return Outcome(folder, manifest, report, engine, passes, unbuilt)


def _unbuilt(plan: Plan, out: Path) -> CapabilityError | None:
    """What is left to do on another machine, if this one lacks something."""
    target = plan.recipe.target
    if target == "onnx" or not missing(target):
        return None
    try:
        require(target)
    except CapabilityError as error:
        return CapabilityError(
            f"{out} holds the proven graph, without its engine: {error.message}",
            hint=f"{error.hint}; then: toolkit build {out}",
        )
    return None


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
    return build_engine(
        model,
        plan.shapes,
        engine_options(plan.recipe.engine, target),
        folder / "model.plan",
        lambda what, done, total: progress(
            f"build engine: {what[:1].lower()}{what[1:]}", done, total
        ),
    )
