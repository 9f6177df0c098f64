"""Which rows of a batch count, and their labels, per task.

    classification  a row is an example, or with labels [B, S] a position; all count, or those
                    with a label
    causal-lm       a row is a position and speaks of the next token, so labels are moved by one;
                    those count whose next token has a label, or without labels is no padding
    masked-lm       positions with a label, or without labels all that are no padding
    seq2seq-lm      positions of the decoder with a label; it was given the labels moved by one
    embedding       a row is an example, all count

Where a batch says itself what counts (``COUNTED``), that holds.

A batch is padded on the right.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.distill.types import COUNTED, IGNORED, INDEX, LABELS, Batch, Task
from toolkit.errors import RecipeError

__all__ = ["flat", "row_labels", "row_mask"]

_IDS, _MASK = "input_ids", "attention_mask"


def flat(values: Tensor) -> Tensor:
    """[..., V] as rows [N, V]."""
    return values.reshape(-1, values.shape[-1])


def row_labels(task: Task, batch: Batch) -> Tensor | None:
    """The labels of rows, int64 [N], ``IGNORED`` where none counts; None where there are none."""
    labels = batch.get(LABELS)
    if labels is None:
        return None
    if task == "causal-lm":
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return labels.reshape(-1)


def row_mask(task: Task, batch: Batch) -> Tensor:
    """Rows that count, bool [N].

    Raises:
        RecipeError: If the batch has not what the task needs.
    """
    if COUNTED in batch:
        return batch[COUNTED].reshape(-1)
    labels = row_labels(task, batch)
    if labels is not None and (task in {"causal-lm", "masked-lm", "seq2seq-lm"} or _tokens(batch)):
        return labels != IGNORED
    if task in {"classification", "embedding"}:
        return torch.ones(_examples(batch), dtype=torch.bool, device=_first(batch).device)
    if task == "seq2seq-lm":
        raise RecipeError(
            "an encoder-decoder student needs labels: what the decoder is to say",
            hint="sequence-level distillation makes them of the teacher's beams",
        )
    real = batch[_MASK] if _MASK in batch else torch.ones_like(batch[_IDS])
    if task == "causal-lm":
        real = functional.pad(real[:, 1:], (0, 1))
    return real.reshape(-1).bool()


def _tokens(batch: Batch) -> bool:
    return batch[LABELS].dim() > 1


def _examples(batch: Batch) -> int:
    return int(_first(batch).shape[0])


def _first(batch: Batch) -> Tensor:
    return next(value for name, value in batch.items() if name not in {LABELS, INDEX})
