"""The likelihood of labels under a combination of members, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from toolkit.errors import RecipeError
from toolkit.fitting.examples import Batch
from toolkit.runtime import interpolate_gated

__all__ = ["Objective", "Rows", "Score", "gather", "score"]

_Array = npt.NDArray[Any]

# Below it an excluded class costs no more: the gradient of an infinite loss leads nowhere.
_LEAST_LOG = -1e4


@dataclass(frozen=True)
class Rows:
    """What members said in one batch, only where a label counts.

    Attributes:
        batch: The examples.
        labels: int64 [n].
        label_logs: Log probability of the label under each member, float64 [n, M].
        outputs: Each member's whole output [rows, ..., V], where it was kept.
    """

    batch: Batch
    labels: torch.Tensor
    label_logs: torch.Tensor
    outputs: tuple[_Array, ...] = ()

    def whole(self) -> list[torch.Tensor]:
        """Members' outputs float64 [n, V]."""
        counts = self.batch.labels >= 0
        return [torch.from_numpy(output[counts].astype(np.float64)) for output in self.outputs]

    def of_rows(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, M] or [rows, positions, M] of a gate for each label that counts [n, M]."""
        labels = torch.from_numpy(self.batch.labels)
        members, rows = self.label_logs.shape[-1], (*labels.shape, 1)
        leading = zip(scores.shape[:-1], rows, strict=False)
        if scores.shape[-1:] != (members,) or any(one not in {1, row} for one, row in leading):
            raise RecipeError(
                f"the gate gives scores of shape {list(scores.shape)} for labels of shape "
                f"{list(labels.shape)}, wanted [rows, {members}] or [rows, positions, {members}]"
            )
        while scores.dim() <= labels.dim():
            scores = scores.unsqueeze(-2)
        spread = scores.expand(*labels.shape, scores.shape[-1])
        return spread[labels >= 0]


def gather(
    batches: Sequence[Batch],
    label_logs: Sequence[Sequence[_Array]],
    outputs: Sequence[Sequence[_Array]],
) -> list[Rows]:
    """Rows of every batch.

    Args:
        batches: The examples.
        label_logs: Of each member, of each batch: log probabilities in the labels' shape.
        outputs: Likewise whole outputs; empty where they are not kept.
    """
    found = []
    for number, batch in enumerate(batches):
        counts = batch.labels >= 0
        logs = np.stack([member[number][counts] for member in label_logs], axis=-1)
        found.append(
            Rows(
                batch,
                torch.from_numpy(batch.labels[counts]),
                torch.from_numpy(np.asarray(logs, np.float64)),
                tuple(member[number] for member in outputs),
            )
        )
    return found


@dataclass(frozen=True)
class Objective:
    """Minus the mean log likelihood of the labels.

    linear: of the mixture, -log sum_m w_m p_m(label); log_linear: of the normalised product.
    """

    combine: Literal["linear", "log_linear"]
    space: Literal["logits", "probabilities"]

    def losses(self, rows: Rows, log_weights: torch.Tensor) -> torch.Tensor:
        """The loss of each row [n], bounded, for log weights [n, M]."""
        logs = log_weights.double()
        if self.combine == "linear":
            return -(logs + rows.label_logs.clamp(min=_LEAST_LOG)).logsumexp(-1)
        members = rows.whole()
        spoken = [m.log() if self.space == "probabilities" else m for m in members]
        bounded = torch.stack([member.clamp(min=_LEAST_LOG) for member in spoken], dim=-1)
        total = (bounded * logs.exp().unsqueeze(-2)).sum(-1)
        return torch.nn.functional.cross_entropy(total, rows.labels, reduction="none")

    def exact(
        self, rows: Rows, log_weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss of each row by the definition, and whether its best class is the label."""
        logs = log_weights.double()
        if not rows.outputs:
            assert self.combine == "linear"
            silent = logs.isneginf()
            terms = (logs + rows.label_logs.masked_fill(silent, 0.0)).masked_fill(
                silent, -torch.inf
            )
            return -terms.logsumexp(-1), None
        mixed = interpolate_gated(rows.whole(), logs, self.combine, self.space)
        if self.space == "probabilities":
            mixed = mixed.log()
        losses = -mixed.gather(-1, rows.labels.unsqueeze(-1)).squeeze(-1)
        return losses, mixed.argmax(-1) == rows.labels


@dataclass(frozen=True)
class Score:
    """How likely labels are.

    Attributes:
        nll: Minus the mean log likelihood of a label, in nats; infinite if one is impossible.
        accuracy: The share of labels that are the most probable class; None where whole outputs
            were not kept.
        count: Labels.
    """

    nll: float
    accuracy: float | None
    count: int

    @property
    def perplexity(self) -> float:
        """Exp of ``nll``."""
        return math.exp(self.nll) if self.nll < 700 else math.inf


def score(
    objective: Objective, rows: Sequence[Rows], weigh: Callable[[Rows], torch.Tensor]
) -> Score:
    """Judge weights on rows.

    Args:
        objective: How members are combined.
        rows: What they said.
        weigh: Gives log weights [n, M] for the rows of a batch.
    """
    total, right, count, known = 0.0, 0, 0, True
    with torch.no_grad():
        for part in rows:
            losses, hits = objective.exact(part, weigh(part))
            total, count = total + float(losses.sum()), count + len(losses)
            known = known and hits is not None
            right += int(hits.sum()) if hits is not None else 0
    mean = total / max(count, 1)
    return Score(mean, right / max(count, 1) if known else None, count)
