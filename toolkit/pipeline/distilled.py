"""A distilled student as a source: trained once, into a folder beside the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.artifacts import TensorSpec
from toolkit.distill.students import FactoryStudent
from toolkit.pipeline.distilling import Distillation, distil, plan_distillation
from toolkit.pipeline.merged import MadeSource
from toolkit.progress import Progress, silent
from toolkit.recipe import DistillModel, Recipe
from toolkit.sources import Part, Source

__all__ = ["STUDENTS", "distilled_source", "train_students"]

# Beside the recipe: a student takes too long to be made again whenever its bundle is looked at.
STUDENTS = ".distill"


def distilled_source(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    model: DistillModel,
    recipe: Recipe,
    folder: Path,
    available: tuple[TensorSpec, ...],
    part: Part | None = None,
    progress: Progress = silent,
) -> Source:
    """The student of ``model``; trained first, unless it was before.

    An unfinished run is gone on with.

    Raises:
        ToolkitError: If it cannot be trained.
    """
    what = plan_distillation(model, recipe, folder, available)
    place = folder / STUDENTS / what.key[:24]
    student = place / "student"
    if not student.is_dir():
        distil(what, student, work=place / "work", resume=True, progress=progress)
    names = ", ".join(name for name, _ in what.teachers.leaves())
    if isinstance(what.student, FactoryStudent):
        weights = student / "model.safetensors"
        return replace(what.student.source, name=model.name, weights=weights)
    how = f"student of {names}"
    return MadeSource(
        model.name, student, model.task, model.cache, part, how, tuple(sorted(_files(what)))
    )


def train_students(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Train every student of a recipe that was not before, telling how it goes.

    Raises:
        ToolkitError: If one cannot be trained.
    """
    found = [model for _, model in recipe.models() if isinstance(model, DistillModel)]
    for model in reversed(found):
        distilled_source(model, recipe, folder, recipe.input_specs(), recipe.part, progress)


def _files(what: Distillation) -> set[Path]:
    """Those of the teachers, the data and what the student began with."""
    found = {path for _, leaf in what.teachers.leaves() for path in leaf.files}
    spec = what.model.distill
    data: Sequence[Path] = [
        one.path for one in (spec.data.path, spec.data.held_out) if one is not None
    ]
    for path in data:
        found |= {p for p in path.rglob("*") if p.is_file()} if path.is_dir() else {path}
    if spec.student.checkpoint is not None:
        found |= {p for p in spec.student.checkpoint.path.rglob("*") if p.is_file()}
    return found
