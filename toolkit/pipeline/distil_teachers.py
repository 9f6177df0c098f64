"""What teachers say once and is kept: their distributions of every row, and texts they write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from toolkit.bundle import hash_file
from toolkit.distill import (
    INDEX,
    Batch,
    CachedTeacher,
    CacheKey,
    CompressionEffect,
    LiveTeacher,
    Objective,
    StudentOutputs,
    Teacher,
    measure_compression,
    write_cache,
)
from toolkit.distill.continuing import SearchOptions
from toolkit.distill.data import Examples
from toolkit.distill.sequences import (
    OnPolicy,
    chosen,
    read_sequences,
    reference,
    taught,
    write_sequences,
)
from toolkit.distill.speaking import speaking
from toolkit.errors import BundleError, RecipeError
from toolkit.pipeline.distil_parts import compression_of, objective_of
from toolkit.pipeline.teaching import live_teacher
from toolkit.progress import Progress
from toolkit.sources import Source

if TYPE_CHECKING:
    from toolkit.pipeline.distilling import Distillation

__all__ = ["Kept", "kept_teacher", "on_policy_of", "search_options", "write_texts"]

_EFFECT, _TARGETS, _TEXTS = "effect.json", "targets", "texts"
_SAMPLE = 4  # batches that compression is measured on


@dataclass(frozen=True)
class Kept:
    """Where things are kept.

    Attributes:
        folder: As asked for; None where training asks the teachers themselves.
        work: The run's own folder.
    """

    folder: Path | None
    work: Path

    @property
    def texts(self) -> Path:
        """The folder of texts that teachers wrote, which are always kept."""
        return (self.folder or self.work) / _TEXTS


def kept_teacher(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    what: Distillation,
    speaker: nn.Module,
    live: Callable[[], LiveTeacher],
    kept: Kept,
    accelerator: Any,
    progress: Progress,
) -> tuple[Teacher, CompressionEffect | None]:
    """A teacher that reads from disk, which is written first where it is not complete.

    The teachers are loaded for that alone, and are gone when training begins.
    """
    assert kept.folder is not None
    folder = kept.folder / _TARGETS
    target = what.model.distill.objective.target
    how, key = compression_of(what.model), _key(what, {"target": target})
    if target == "mean_of_kls":
        raise RecipeError(
            "mean_of_kls needs the word of every teacher, and a cache keeps that of all together",
            hint="target: mixture, or train without --cache",
        )
    with accelerator.main_process_first():
        if accelerator.is_main_process and not _complete(folder, key, what):
            teacher = live()
            batches = _Batches(what, torch.arange(len(what.examples)), accelerator.device)
            write_cache(folder, teacher, batches, key, compression=how, progress=progress)
            effect = _effect(what, speaker, teacher, batches)
            if effect is not None:
                text = json.dumps(asdict(effect))
                (kept.folder / _EFFECT).write_text(text, encoding="utf-8")
            del teacher
    said = kept.folder / _EFFECT
    known = CompressionEffect(**json.loads(said.read_text())) if said.is_file() else None
    return CachedTeacher(folder, key, what.student.task, how), known


def _complete(folder: Path, key: CacheKey, what: Distillation) -> bool:
    try:
        CachedTeacher(folder, key, what.student.task, compression_of(what.model))
    except BundleError:
        return False
    return True


def _key(what: Distillation, options: dict[str, Any]) -> CacheKey:
    tokenizer = what.student.tokenizer
    # kept classes and texts are ids of the student's, data without a certain token or with it
    ids = None if tokenizer is None else hash_file(tokenizer.path).sha256
    told = {"task": what.student.task, "tokenizer": ids, **options}
    return CacheKey(what.definition, what.examples.digest, told)


class _Batches(Sequence[Batch]):
    """Rows in order, in parts that are the same every time, made when asked for."""

    def __init__(self, what: Distillation, rows: Tensor, device: torch.device) -> None:
        self._size = what.options.part or what.options.batch
        self._examples, self._rows, self._device = what.examples, rows, device

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._size)

    @overload
    def __getitem__(self, place: int) -> Batch: ...

    @overload
    def __getitem__(self, place: slice) -> list[Batch]: ...

    def __getitem__(self, place: int | slice) -> Batch | list[Batch]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        rows = self._rows[place * self._size : (place + 1) * self._size]
        if not len(rows):
            raise IndexError(place)
        return {n: v.to(self._device) for n, v in self._examples.batch(rows).items()}


def _effect(
    what: Distillation, speaker: nn.Module, teacher: Teacher, batches: Sequence[Batch]
) -> CompressionEffect | None:
    task, spec = what.student.task, what.model.distill.objective
    if task == "embedding" or spec.match:
        return None
    objective: Objective = objective_of(spec, task, ({}, {}), 0)
    how = compression_of(what.model)
    speaker.to(batches[0][INDEX].device).eval()

    def student(batch: Batch) -> StudentOutputs:
        return speaking(speaker(batch), batch, task)

    try:
        return measure_compression(teacher, student, objective, batches[:_SAMPLE], how)
    finally:
        speaker.train()


def search_options(what: Distillation) -> SearchOptions:
    """How teachers, or the student, go on with texts."""
    spec, tokenizer = what.model.distill.objective, what.student.tokenizer
    end = None if tokenizer is None else tokenizer.special("eos")
    return SearchOptions(
        beams=spec.beams,
        max_new_tokens=spec.new_tokens,
        ends=() if end is None else (end,),
        prompt=spec.prompt,
    )


def write_texts(
    what: Distillation, kept: Kept, source: Source | None, accelerator: Any, progress: Progress
) -> Examples:
    """The rows, of which those to learn from say what the teachers wrote if that is asked for.

    Raises:
        RecipeError: If the student is no language model.
        IntegrityError: If texts were written from other teachers, data or options.
    """
    spec, task = what.model.distill.objective, what.student.task
    if spec.level == "word":
        return what.examples
    options, key = search_options(what), _key(what, {})
    rows = what.examples.train
    with accelerator.main_process_first():
        if accelerator.is_main_process and not _written(kept.texts, key, options):
            teacher = live_teacher(what.teachers, task, student=source)
            teacher.tree.to(accelerator.device)
            batches = _Batches(what, rows, accelerator.device)
            write_sequences(
                kept.texts,
                teacher.speak,
                task,
                batches,
                key=key,
                options=options,
                progress=progress,
            )
    found = read_sequences(kept.texts, key, options)
    columns, texts = what.examples.columns, {}
    for row in rows.tolist():
        said = reference(task, columns, row, options.prompt)
        texts[row] = chosen(spec.level, found[row], said, options.ends)
    new = taught(task, columns, texts, options.prompt, _pad(what))
    return what.examples.with_columns(**new)


def _written(folder: Path, key: CacheKey, options: SearchOptions) -> bool:
    try:
        read_sequences(folder, key, options)
    except BundleError:
        return False
    return True


def _pad(what: Distillation) -> int:
    tokenizer = what.student.tokenizer
    return (None if tokenizer is None else tokenizer.special("pad")) or 0


def on_policy_of(what: Distillation, kept: Kept) -> OnPolicy | None:
    """What has the student write the texts of some steps, if that is asked for.

    Raises:
        RecipeError: If what teachers say is kept: nobody knows what the student will write.
    """
    share = what.model.distill.objective.on_policy
    if not share:
        return None
    if kept.folder is not None:
        raise RecipeError(
            "on_policy has teachers judge what the student writes, which no cache holds",
            hint="train without --cache, or leave on_policy out",
        )
    return OnPolicy(what.student.task, share, search_options(what), pad=_pad(what))
