"""What a ``distill`` of a recipe asks for, as the parts that distillation is put together from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from toolkit.artifacts import TensorSpec
from toolkit.caches import is_cache
from toolkit.distill import (
    EMBEDDING,
    Batch,
    Compression,
    HardLabels,
    Matching,
    Needs,
    Objective,
    Targets,
    Task,
    Weighted,
    WordLevel,
    mixed,
    row_mask,
)
from toolkit.distill.data import DataOptions, Examples, read_examples
from toolkit.distill.layers import Layers
from toolkit.distill.options import LoopOptions
from toolkit.distill.students import FactoryStudent, HuggingFaceStudent, Student, task_of
from toolkit.distill.texts import Reader
from toolkit.recipe import BUILT_IN_FACTORIES, DistillModel, ObjectiveSpec
from toolkit.recipe.distilling import MatchSpec
from toolkit.sources import FactorySource

__all__ = [
    "LabelsOnly",
    "compression_of",
    "examples_of",
    "hard_share",
    "loop_options",
    "matches_of",
    "needs_of",
    "objective_of",
    "student_of",
    "taught_by_models",
]


class LabelsOnly:
    """A teacher that says nothing: rows and labels are all there is."""

    def __init__(self, task: Task) -> None:
        self._task: Task = task

    def targets(self, batch: Batch) -> Targets:
        """Which rows count."""
        return Targets(row_mask(self._task, batch))


def student_of(model: DistillModel, folder: Path, available: Sequence[TensorSpec]) -> Student:
    """The student; ``available`` are the inputs that a factory may take."""
    spec = model.distill.student
    tokenizer = None if spec.tokenizer is None else spec.tokenizer.path
    if spec.factory is not None:
        source = FactorySource(
            name=model.name,
            target=spec.factory,
            weights=Path() if spec.weights is None else spec.weights.path,
            available=tuple(available),
            rename=model.rename,
            outputs=tuple(spec.outputs),
            kwargs=spec.kwargs,
            search=None if spec.factory in BUILT_IN_FACTORIES else folder,
        )
        task = "classification" if model.task == "auto" else task_of(model.task)
        return FactoryStudent(source, spec.weights is not None, task, tokenizer)
    layers = None
    if spec.layers is not None:
        layers = Layers(spec.layers.first, spec.layers.every, spec.layers.numbers)
    begins = None if spec.checkpoint is None else spec.checkpoint.path
    return HuggingFaceStudent(begins, spec.config or {}, layers, model.task, tokenizer)


def examples_of(
    model: DistillModel, student: Student, teachers: Sequence[TensorSpec], seed: int
) -> Examples:
    """The rows that student and teachers read."""
    data, task = model.distill.data, student.task
    known = {spec.name: spec for spec in (*teachers, *student.inputs) if not is_cache(spec.name)}
    reader = None
    if student.tokenizer is not None:
        config = getattr(student, "configuration", None)
        reader = Reader(
            task,
            student.tokenizer,
            tuple(known),
            length=data.length,
            packed=data.packed,
            text=data.text,
            label=data.label,
            target=data.reference,
            masked=data.masked,
            start=getattr(config, "decoder_start_token_id", None),
            seed=seed,
        )
    held = None if data.held_out is None else data.held_out.path
    options = DataOptions(data.path.path, held, data.share, seed)
    return read_examples(options, tuple(known.values()), reader)


def loop_options(model: DistillModel, seed: int) -> LoopOptions:
    """How the student is trained."""
    return LoopOptions(**model.distill.training.model_dump(), seed=seed)


def compression_of(model: DistillModel) -> Compression:
    """What is kept of the teachers' distributions."""
    kept, objective = model.distill.cache, model.distill.objective
    return Compression(kept.top_k, kept.top_p, objective.temperature, kept.dtype)


def matches_of(spec: ObjectiveSpec, task: Task) -> tuple[MatchSpec, ...]:
    """Tensors that are brought together; those of embeddings are the embeddings by default."""
    if task == "embedding" and not spec.match:
        return (MatchSpec(student=EMBEDDING, teacher=EMBEDDING),)
    return spec.match


def hard_share(spec: ObjectiveSpec) -> float:
    """The share of the labels; with texts that teachers wrote all of it unless said otherwise."""
    if spec.hard is not None:
        return spec.hard
    return 0.0 if spec.level == "word" else 1.0


def taught_by_models(spec: ObjectiveSpec, task: Task) -> bool:
    """Whether training asks the teachers anything."""
    return hard_share(spec) < 1 or bool(matches_of(spec, task))


def needs_of(spec: ObjectiveSpec, task: Task) -> Needs:
    """What the objective will read."""
    pairs = matches_of(spec, task)
    return Needs(
        task != "embedding",
        tuple(dict.fromkeys(pair.student for pair in pairs)),
        tuple(dict.fromkeys(pair.teacher for pair in pairs)),
    )


def objective_of(
    spec: ObjectiveSpec,
    task: Task,
    said: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    seed: int,
) -> Objective:
    """The objective.

    Args:
        spec: What is asked for.
        task: Of the student.
        said: What student and teachers say of any batch, for the widths of what is matched.
        seed: Of projections.
    """
    parts: list[tuple[float, Objective]] = []
    if task != "embedding":
        word = WordLevel(spec.divergence, spec.temperature, spec.beta)
        parts.append((1.0, mixed(hard_share(spec), HardLabels(task), word)))
    for number, pair in enumerate(matches_of(spec, task)):
        names = [(pair.student, pair.teacher)]
        parts.append((pair.weight, Matching.of(pair.kind, names, said, seed + number)))
    return parts[0][1] if parts[0][0] == 1.0 and len(parts) == 1 else Weighted(parts)
