"""Distillation of a recipe: teachers are planned and asked, a student is trained and written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.artifacts import TensorSpec
from toolkit.bundle import make_parents, put_in_place
from toolkit.distill import Batch, Needs, Objective, Teacher
from toolkit.distill.data import Examples
from toolkit.distill.loop import Training, accelerator_of, train_student
from toolkit.distill.options import LoopOptions
from toolkit.distill.order import Order
from toolkit.distill.shards import digest
from toolkit.distill.speaking import Said
from toolkit.distill.state import Store
from toolkit.distill.students import HuggingFaceStudent, Student
from toolkit.errors import BundleError
from toolkit.pipeline.distil_parts import (
    LabelsOnly,
    examples_of,
    loop_options,
    needs_of,
    objective_of,
    student_of,
    taught_by_models,
)
from toolkit.pipeline.distil_report import DistilReport
from toolkit.pipeline.distil_teachers import Kept, kept_teacher, on_policy_of, write_texts
from toolkit.pipeline.plan import Plan, plan_teachers
from toolkit.pipeline.teaching import live_teacher, teacher_definition
from toolkit.progress import Progress, silent
from toolkit.recipe import DistillModel, Recipe
from toolkit.sources import HuggingFaceSource, Source

__all__ = ["Distillation", "distil", "plan_distillation"]

REPORT = "distillation.json"


@dataclass(frozen=True)
class Distillation:
    """A ``distill`` whose every name is resolved.

    Attributes:
        model: What was asked for.
        student: What is taught.
        teachers: The plan of what teaches.
        examples: Rows.
        options: How the student is trained.
    """

    model: DistillModel
    student: Student
    teachers: Plan
    examples: Examples
    options: LoopOptions

    @property
    def needs(self) -> Needs:
        """What the objective reads."""
        return needs_of(self.model.distill.objective, self.student.task)

    @property
    def asks(self) -> bool:
        """Whether training asks the teachers."""
        return taught_by_models(self.model.distill.objective, self.student.task)

    @property
    def steps(self) -> tuple[int, int]:
        """Steps of the training, and of a pass."""
        per_pass = Order(self.examples.train, self.options.batch, 0).per_pass
        return self.options.total(per_pass), per_pass

    @property
    def parameters(self) -> int:
        """Of the student."""
        speaker = self.student.build(0, Needs())
        return sum(parameter.numel() for parameter in speaker.parameters())

    @cached_property
    def definition(self) -> dict[str, Any]:
        """What the teachers compute, as JSON values; of no use to a student of labels alone."""
        writes = self.model.distill.objective.level != "word"
        return teacher_definition(self.teachers.root) if self.asks or writes else {}

    @cached_property
    def key(self) -> str:
        """Stands for all that the trained student depends on."""
        spec = self.model.distill
        told = {
            "student": self.student.digest,
            "teachers": self.definition,
            "data": [self.examples.digest, self.examples.split],
            "objective": spec.objective.model_dump(mode="json"),
            "cache": spec.cache.model_dump(mode="json"),
            "options": asdict(self.options),
        }
        return digest(told)


def plan_distillation(
    model: DistillModel, recipe: Recipe, folder: Path, available: tuple[TensorSpec, ...]
) -> Distillation:
    """Resolve a distillation: data are read, and no weight.

    Args:
        model: The model.
        recipe: Of its inputs, seed and folder.
        folder: What paths are read against.
        available: The inputs that a factory may take.

    Raises:
        ToolkitError: If student, teachers and data do not fit together.
    """
    student = student_of(model, folder, available)
    part = "decoder" if student.task == "seq2seq-lm" else None
    asked = recipe.model_copy(update={"model": model.distill.teachers, "part": part})
    teachers = plan_teachers(asked, folder)
    examples = examples_of(model, student, teachers.inputs, recipe.seed)
    return Distillation(model, student, teachers, examples, loop_options(model, recipe.seed))


def distil(  # noqa: PLR0913  (each is a different thing, and all are needed)
    what: Distillation,
    out: Path,
    *,
    work: Path,
    cache: Path | None = None,
    resume: bool = False,
    logs: Path | None = None,
    progress: Progress = silent,
) -> DistilReport | None:
    """Train the student and write it to ``out``, in one step when all is done.

    Args:
        what: The distillation.
        out: A folder that does not exist, or is empty.
        work: Where checkpoints go until the student is written.
        cache: Where what teachers say is kept, so that training needs none of them in memory.
        resume: Whether to go on with an unfinished run.
        logs: Folder for TensorBoard.
        progress: Told of every file of the cache and of every step.

    Returns:
        How it went; None on all processes but the first.

    Raises:
        ToolkitError: Whatever fails says what it found.
    """
    _check_target(out)
    accelerator = accelerator_of(what.options)
    seed = what.options.seed
    kept = Kept(cache, work)
    on_policy = on_policy_of(what, kept)
    with _student_source(what) as source:
        what = replace(what, examples=write_texts(what, kept, source, accelerator, progress))
        speaker = what.student.build(seed, what.needs)
        teacher, effect = _teacher(what, speaker, source, kept, accelerator, progress)
    objective = _objective(what, speaker, teacher, accelerator.device)
    training = Training(speaker, what.student.task, teacher, objective, what.examples, on_policy)
    store = Store(work, what.key)
    outcome = train_student(
        training, what.options, store, resume=resume, logs=logs, progress=progress,
        accelerator=accelerator,
    )  # fmt: skip
    if not outcome.main:
        return None
    report = DistilReport.of(what, outcome.report, speaker, effect, out)
    _write(what.student, speaker, outcome.state, out, report)
    store.finish()
    return report


def _objective(
    what: Distillation, speaker: nn.Module, teacher: Teacher, device: torch.device
) -> Objective:
    """The objective, with projections as wide as what is said of two rows."""
    spec, task = what.model.distill.objective, what.student.task
    said: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    if what.needs.student:
        found = what.examples.batch(what.examples.train[:2])
        rows: Batch = {name: value.to(device) for name, value in found.items()}
        speaker.to(device).eval()
        with torch.no_grad():
            own: Said = speaker(rows)
        speaker.train()
        said = (own[1], dict(teacher.targets(rows).hidden))
    return objective_of(spec, task, said, what.options.seed)


def _teacher(  # noqa: PLR0913, PLR0917
    what: Distillation,
    speaker: nn.Module,
    source: Source | None,
    kept: Kept,
    accelerator: Any,
    progress: Progress,
) -> tuple[Teacher, Any]:
    if not what.asks:
        return LabelsOnly(what.student.task), None
    target = what.model.distill.objective.target

    def live() -> Any:
        made = live_teacher(
            what.teachers, what.student.task, student=source, target=target, needs=what.needs
        )
        made.tree.to(accelerator.device)
        return made

    if kept.folder is None:
        return live(), None
    return kept_teacher(what, speaker, live, kept, accelerator, progress)


@contextmanager
def _student_source(what: Distillation) -> Iterator[Source | None]:
    """The student as a source, whose vocabulary batches are in; None where it reads no tokens."""
    student = what.student
    if not isinstance(student, HuggingFaceStudent) or student.tokenizer is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="toolkit-") as name:
        speaker = student.build(0, Needs())
        student.save(speaker, speaker.state_dict(), Path(name))
        yield HuggingFaceSource(what.model.name, Path(name), student.resolved_head)


def _check_target(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "a folder with files in it" if out.is_dir() else "a file"
        raise BundleError(f"{out} exists and is {what}", hint="choose another, or remove it")


def _write(
    student: Student,
    speaker: nn.Module,
    state: dict[str, Tensor],
    out: Path,
    report: DistilReport,
) -> None:
    """The checkpoint with its report, beside its place and then at it."""
    make_parents(out.parent, BundleError)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        partial = Path(name) / "student"
        student.save(speaker, state, partial)
        text = json.dumps(report.to_json(), indent=2, sort_keys=True)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        put_in_place(partial, out)
