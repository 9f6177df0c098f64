"""Learning from whole texts: those that teachers write, and those that the student writes.

    sequence       train on the teacher's best hypothesis of a beam search, as if it were the label
                   (sequence-level distillation; Kim & Rush 2016, arXiv:1606.07947)
    interpolation  on the hypothesis that is closest to the reference, by sentence BLEU (theirs too)
    on-policy      the student writes, and teachers say of every position what they would have said
                   (GKD, Agarwal et al. 2023, arXiv:2306.13649), in a fraction of the batches

The first two are made once, before training, and kept on disk like other targets. Teachers write
as the ensemble that they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.distill.bleu import sentence_bleu
from toolkit.distill.cache import CacheKey, layout
from toolkit.distill.continuing import (
    Hypothesis,
    SearchOptions,
    Speak,
    beam_search,
    begin,
    sample,
)
from toolkit.distill.remembering import Remembering, memory_of
from toolkit.distill.rows import row_mask
from toolkit.distill.shards import Array, map_shards, write_shards
from toolkit.distill.texts import shifted
from toolkit.distill.types import COUNTED, IGNORED, INDEX, LABELS, Batch, Task
from toolkit.errors import RecipeError
from toolkit.progress import Progress, silent

__all__ = [
    "OnPolicy",
    "SequenceKind",
    "chosen",
    "read_sequences",
    "reference",
    "taught",
    "write_sequences",
]

SequenceKind: TypeAlias = Literal["sequence", "interpolation"]

_IDS, _MASK, _SPOKEN = "input_ids", "attention_mask", "decoder_input_ids"
_PER_FILE = 16  # batches


def write_sequences(  # noqa: PLR0913  (each is a different thing, and all are needed)
    folder: Path,
    speak: Speak,
    task: Task,
    batches: Sequence[Batch],
    *,
    key: CacheKey,
    options: SearchOptions,
    per_file: int = _PER_FILE,
    progress: Progress = silent,
) -> bool:
    """Search the beams of every example once and keep them all, with their scores.

    Args:
        folder: Where.
        speak: The teachers; not asked if the folder is complete.
        task: ``causal-lm`` or ``seq2seq-lm``.
        batches: The same every time, with ``index``.
        key: What the result depends on.
        options: Of the search.
        per_file: Batches in a file.
        progress: Told of every file.

    Returns:
        Whether anything was written.

    Raises:
        IntegrityError: If the folder was written from something else.
        BundleError: If it cannot be written.
        RecipeError: If the task is to continue no text.
    """

    def make(number: int) -> Mapping[str, Array]:
        first = number * per_file
        part = [batches[i] for i in range(first, min(first + per_file, len(batches)))]
        examples = torch.cat([batch[INDEX] for batch in part]).cpu().numpy()
        found = [
            each
            for batch in part
            for each in beam_search(speak, begin(task, batch, options), options)
        ]
        every = [one for each in found for one in each]
        return {
            "examples": examples.astype(np.int64),
            "hypotheses": np.array([len(each) for each in found], np.int64),
            "scores": np.array([one.score for one in every], np.float32),
            "lengths": np.array([len(one.tokens) for one in every], np.int64),
            "tokens": np.array([token for one in every for token in one.tokens], np.int32),
        }

    return write_shards(folder, _depends(key, options), layout(batches, per_file), make, progress)


def read_sequences(
    folder: Path, key: CacheKey, options: SearchOptions
) -> dict[int, list[Hypothesis]]:
    """The hypotheses of every example, best first.

    Raises:
        IntegrityError: If they were written from other teachers, data or options.
        BundleError: If they are not complete.
    """
    found: dict[int, list[Hypothesis]] = {}
    for file in map_shards(folder, _depends(key, options)):
        tokens = np.split(file["tokens"], np.cumsum(file["lengths"])[:-1])
        scores = file["scores"].tolist()
        place = 0
        for example, count in zip(
            file["examples"].tolist(), file["hypotheses"].tolist(), strict=True
        ):
            found[example] = [
                Hypothesis(scores[i], tuple(tokens[i].tolist()))
                for i in range(place, place + count)
            ]
            place += count
    return found


def _depends(key: CacheKey, options: SearchOptions) -> dict[str, Any]:
    return {
        "teachers": dict(key.teachers),
        "data": key.data,
        "options": dict(key.options),
        "search": asdict(options),
    }


def reference(task: Task, columns: Mapping[str, Tensor], row: int, prompt: int) -> list[int]:
    """What the data say where the teacher writes."""
    if task == "seq2seq-lm":
        return [token for token in columns[LABELS][row].tolist() if token != IGNORED]
    ids = columns[_IDS][row]
    real = int(columns[_MASK][row].sum()) if _MASK in columns else len(ids)
    return [int(token) for token in ids[prompt:real].tolist()]


def chosen(
    kind: SequenceKind, hypotheses: Sequence[Hypothesis], wanted: Sequence[int], ends: Sequence[int]
) -> tuple[int, ...]:
    """The hypothesis to train on; of equally close ones the more probable."""
    if kind == "sequence":
        return hypotheses[0].tokens
    said = [token for token in wanted if token not in ends]
    return max(
        hypotheses,
        key=lambda one: sentence_bleu([t for t in one.tokens if t not in ends], said),
    ).tokens


def taught(
    task: Task,
    columns: Mapping[str, Tensor],
    texts: Mapping[int, Sequence[int]],
    prompt: int = 1,
    pad: int = 0,
) -> dict[str, Tensor]:
    """The columns of a data set in which some rows say what a teacher wrote.

    Training on them with labels is sequence-level distillation. Of a causal model the prompt is no
    label. Rows without a text stay as they are.

    Args:
        task: ``causal-lm`` or ``seq2seq-lm``.
        columns: Of all rows.
        texts: Continuations by row.
        prompt: Tokens of a causal model's rows that were given.
        pad: The token that fills rows up.

    Returns:
        Those columns that change.
    """
    if task == "seq2seq-lm":
        old = columns[LABELS]
        width = max(old.shape[1], *map(len, texts.values())) if texts else old.shape[1]
        labels = functional.pad(old, (0, width - old.shape[1]), value=IGNORED)
        for row, text in texts.items():
            labels[row] = IGNORED
            labels[row, : len(text)] = torch.tensor(text, dtype=labels.dtype)
        start = int(columns[_SPOKEN][0, 0])
        return {LABELS: labels, _SPOKEN: shifted(labels, start, pad)}
    return _continued(columns, texts, prompt, pad)


def _continued(
    columns: Mapping[str, Tensor], texts: Mapping[int, Sequence[int]], prompt: int, pad: int
) -> dict[str, Tensor]:
    ids = columns[_IDS]
    longest = max((prompt + len(text) for text in texts.values()), default=0)
    more = max(longest - ids.shape[1], 0)
    mask = columns.get(_MASK, torch.ones_like(ids))
    labels = columns.get(LABELS)
    if labels is None:
        labels = ids.masked_fill(mask == 0, IGNORED)
    found = {
        _IDS: functional.pad(ids, (0, more), value=pad),
        _MASK: functional.pad(mask, (0, more)),
        LABELS: functional.pad(labels, (0, more), value=IGNORED),
    }
    for row, text in texts.items():
        stop = prompt + len(text)
        said = torch.tensor(text, dtype=ids.dtype, device=ids.device)
        for name, fill, value in ((_IDS, pad, said), (_MASK, 0, 1), (LABELS, IGNORED, said)):
            found[name][row, prompt:stop] = value
            found[name][row, stop:] = fill
        found[LABELS][row, :prompt] = IGNORED
    if "position_ids" in columns:
        places = torch.arange(ids.shape[1] + more, device=ids.device)
        found["position_ids"] = places.expand_as(found[_IDS]).contiguous()
    if "token_type_ids" in columns:
        found["token_type_ids"] = functional.pad(columns["token_type_ids"], (0, more))
    return found


@dataclass(frozen=True)
class OnPolicy:
    """Has the student write the texts of some batches.

    What it writes has no labels: only the positions it wrote count, and a share of hard labels adds
    nothing in those batches. Draws come from PyTorch's own state of randomness, which a checkpoint
    keeps.

    Attributes:
        task: ``causal-lm`` or ``seq2seq-lm``.
        fraction: Of the batches, lambda in GKD.
        options: How far it writes; it samples, so beams say nothing.
        temperature: Of the samples.
        pad: The token that fills rows up.
    """

    task: Task
    fraction: float
    options: SearchOptions
    temperature: float = 1.0
    pad: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise RecipeError(f"the fraction on policy is {self.fraction}, wanted from 0 to 1")

    def __call__(self, speaker: nn.Module, batch: Batch) -> Batch:
        """The batch, or one of the same beginnings with what the student writes.

        Args:
            speaker: Gives logits [R, S, V] first, as ``Student.build`` makes it.
            batch: On its device.
        """
        if float(torch.rand(())) >= self.fraction:
            return batch

        def speak(feeds: Mapping[str, Tensor]) -> Tensor:
            logits: Tensor = speaker(feeds)[0]
            return logits

        memory = memory_of(speaker.get_submodule("module")) if hasattr(speaker, "module") else None
        speech: Speak = speak if memory is None else Remembering(memory, (memory,))
        training = speaker.training
        speaker.eval()
        try:
            texts = sample(speech, begin(self.task, batch, self.options), self.options,
                           self.temperature)  # fmt: skip
        finally:
            speaker.train(training)
        said = dict(enumerate(texts))
        new = {**batch, **taught(self.task, batch, said, self.options.prompt, self.pad)}
        labels = new.pop(LABELS)
        counted = row_mask(self.task, {**new, LABELS: labels}).reshape(labels.shape)
        return {**new, COUNTED: counted}
