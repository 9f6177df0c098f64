"""What pruning did to the answers: accuracy, or perplexity of language models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.pipeline.sparse_inputs import run_case
from toolkit.pipeline.sparse_source import Labelled

__all__ = ["Quality", "answers_of", "quality_of"]


@dataclass(frozen=True)
class Quality:
    """One figure before and after.

    Attributes:
        metric: ``accuracy``, ``perplexity``, or ``error``: the root mean square of what outputs
            were moved by, relative to them, where there are neither labels nor next tokens.
        before: Of the dense model.
        after: Of the sparse one.
        agreement: Share of rows whose largest output is at the same place.
    """

    metric: str
    before: float
    after: float
    agreement: float


def answers_of(model: nn.Module, held: Sequence[Labelled]) -> list[Tensor]:
    """The first output of every case."""
    return [run_case(model, one.case).float() for one in held]


def quality_of(
    before: Sequence[Tensor], after: Sequence[Tensor], held: Sequence[Labelled]
) -> Quality:
    """Hold answers of the sparse model against the dense one's, and both against the truth."""
    same = [
        float((a.argmax(-1) == b.argmax(-1)).double().sum())
        for a, b in zip(before, after, strict=True)
    ]
    agreement = sum(same) / sum(a[..., 0].numel() for a in before)
    labels = [one.labels for one in held]
    if all(label is not None for label in labels):
        return Quality("accuracy", _accuracy(before, held), _accuracy(after, held), agreement)
    if all(
        a.dim() == 3 and "input_ids" in one.case.feeds()
        for a, one in zip(before, held, strict=True)
    ):
        return Quality("perplexity", _perplexity(before, held), _perplexity(after, held), agreement)
    moved = sum(float((a - b).square().sum()) for a, b in zip(before, after, strict=True))
    scale = sum(float(a.square().sum()) for a in before)
    return Quality("error", 0.0, math.sqrt(moved / max(scale, 1e-300)), agreement)


def _accuracy(answers: Sequence[Tensor], held: Sequence[Labelled]) -> float:
    right = count = 0
    for found, one in zip(answers, held, strict=True):
        assert one.labels is not None
        right += int((found.argmax(-1).numpy() == one.labels).sum())
        count += one.labels.size
    return right / count


def _perplexity(answers: Sequence[Tensor], held: Sequence[Labelled]) -> float:
    """Of the next token, padding left out."""
    total, count = 0.0, 0
    for found, one in zip(answers, held, strict=True):
        feeds = one.case.feeds()
        ids = torch.from_numpy(feeds["input_ids"]).long()
        mask = (
            torch.from_numpy(feeds["attention_mask"]).bool()
            if "attention_mask" in feeds
            else ids >= 0
        )
        kept = mask[:, 1:] & mask[:, :-1]
        losses = nn.functional.cross_entropy(
            found[:, :-1].transpose(1, 2).double(), ids[:, 1:], reduction="none"
        )
        total += float(losses[kept].sum())
        count += int(kept.sum())
    return math.exp(total / max(count, 1))
