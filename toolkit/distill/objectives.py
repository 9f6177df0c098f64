"""What a student is taught by: distributions over classes, labels, and weighted sums of objectives.

Word level (Kim & Rush 2016, arXiv:1606.07947): of every row, the divergence between the target's
distribution and the student's at temperature T, times T^2, which keeps gradients the size they
have at T = 1 (Hinton et al. 2015, arXiv:1503.02531):

    T^2 D( softmax(log p / T) || softmax(z / T) )

Hard: -log q(label). Mixed with share alpha:  alpha hard + (1 - alpha) soft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.distill.divergences import Divergence, Formula, bucketed, divergence
from toolkit.distill.rows import row_labels
from toolkit.distill.types import (
    COUNTED,
    IGNORED,
    Batch,
    Loss,
    Needs,
    Objective,
    StudentOutputs,
    Targets,
    Task,
)
from toolkit.errors import RecipeError

__all__ = ["HardLabels", "Weighted", "WordLevel", "mixed"]


@dataclass(frozen=True)
class WordLevel:
    """The student's distribution of every row towards the target's.

    Where the target holds ``per_teacher`` it is the weighted mean of the divergences from each;
    where it is compressed, that over its buckets, a lower bound (``toolkit.distill.divergences``).

    Attributes:
        divergence: Which.
        temperature: T.
        beta: Of ``jsd``.
    """

    divergence: Divergence = "forward_kl"
    temperature: float = 1.0
    beta: float = 0.5
    needs: Needs = field(default=Needs(), init=False)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RecipeError(f"the temperature is {self.temperature}, wanted above 0")
        if self.divergence == "jsd" and not 0 < self.beta < 1:
            raise RecipeError(
                f"beta of jsd is {self.beta}, wanted above 0 and below 1",
                hint="the limits are forward_kl and reverse_kl",
            )

    def __call__(self, student: StudentOutputs, targets: Targets, batch: Batch) -> Loss:  # noqa: ARG002
        """The sum over the rows that count.

        Raises:
            RecipeError: If target and student do not have the same classes, or a compressed
                target is of another temperature.
        """
        counts = student.mask
        own = _wide(_counted(_logits(student), counts))
        own = own if self.temperature == 1 else own / self.temperature
        apart = divergence(self.divergence, self.beta)
        if targets.per_teacher:
            rows = self._mean(apart, own, targets, counts)
        elif targets.log_probs is not None:
            wanted = _same_classes(_counted(targets.log_probs, counts), own)
            if targets.temperature == self.temperature:
                wanted = _wide(wanted)
            else:
                wanted = self._tempered(wanted, targets.temperature)
            rows = apart(wanted, torch.log_softmax(own, -1))
        else:
            rows = self._compressed(apart, own, targets, counts)
        return Loss(rows.sum() * self.temperature**2, counts.sum())

    def parameters(self) -> Iterable[nn.Parameter]:
        """None."""
        return ()

    def _mean(self, apart: Formula, own: Tensor, targets: Targets, counts: Tensor) -> Tensor:
        student = torch.log_softmax(own, -1)
        logs = [_same_classes(_counted(logits, counts), own) for logits in targets.per_teacher]
        assert targets.weights is not None
        weights = targets.weights.to(own)
        by_row = weights[counts] if weights.dim() == 2 else weights.expand(len(own), len(logs))
        rows = torch.zeros_like(own[:, 0])
        for place, one in enumerate(logs):
            wanted = self._tempered(one, targets.temperature)
            rows = rows + by_row[:, place] * apart(wanted, student)
        return rows

    def _compressed(self, apart: Formula, own: Tensor, targets: Targets, counts: Tensor) -> Tensor:
        if targets.ids is None or targets.kept is None or targets.rest is None:
            raise RecipeError(
                "the teachers say no distribution over classes, and one is to be learnt",
                hint="match sentence_embedding or hidden states instead",
            )
        if targets.temperature != self.temperature:
            raise RecipeError(
                f"the kept targets are of temperature {targets.temperature:g} and the objective's "
                f"is {self.temperature:g}: what was left out cannot be tempered again",
                hint="write the cache with the temperature that is trained with",
            )
        ids, kept = targets.ids[counts], targets.kept[counts].to(own.dtype)
        wanted = torch.cat((kept, targets.rest[counts].to(own.dtype).unsqueeze(-1)), dim=-1)
        if ids.numel() and int(ids.max()) >= own.shape[-1]:
            raise _classes(f"at least {int(ids.max()) + 1}", own.shape[-1])
        return apart(wanted, bucketed(own, ids, kept))

    def _tempered(self, logs: Tensor, temperature: float) -> Tensor:
        """Log softmax of what was already divided by ``temperature``; -inf stays."""
        return torch.log_softmax(_wide(logs) * (temperature / self.temperature), -1)


@dataclass(frozen=True)
class HardLabels:
    """Cross-entropy with the labels; rows without one add nothing but are counted.

    What the student wrote itself is no label: of such a batch nothing is added at all.

    Attributes:
        task: Says which row has which label.
    """

    task: Task
    needs: Needs = field(default=Needs(), init=False)

    def __call__(self, student: StudentOutputs, targets: Targets, batch: Batch) -> Loss:  # noqa: ARG002
        """The sum over the rows that count.

        Raises:
            RecipeError: If the batch has no labels, or one is no class of the student's.
        """
        labels, counts = row_labels(self.task, batch), student.mask
        if COUNTED in batch:
            return Loss(_logits(student)[:0].sum().float(), counts.sum())
        if labels is None:
            raise RecipeError(
                "the loss has a part from labels, and the data has none",
                hint="add labels, or leave the teachers alone: hard: 0",
            )
        logits, wanted = _wide(_counted(_logits(student), counts)), labels[counts]
        if wanted.numel() and int(wanted.max()) >= logits.shape[-1]:
            raise RecipeError(
                f"a label is {int(wanted.max())}, and the student has {logits.shape[-1]} classes"
            )
        total = functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
        return Loss(total, counts.sum())

    def parameters(self) -> Iterable[nn.Parameter]:
        """None."""
        return ()


class Weighted(nn.Module):
    """A sum of objectives with weights.

    Its state is that of the projections in it.
    """

    def __init__(self, parts: Sequence[tuple[float, Objective]]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        # registered, so that its state and parameters are theirs
        self.learned = nn.ModuleList(part for _, part in parts if isinstance(part, nn.Module))

    @property
    def needs(self) -> Needs:
        """What any of them reads."""
        found = Needs(logits=False)
        for _, part in self.parts:
            found = found + part.needs
        return found

    def forward(self, student: StudentOutputs, targets: Targets, batch: Batch) -> Loss:
        """The weighted sum; all of them count the same rows."""
        losses = [(weight, part(student, targets, batch)) for weight, part in self.parts]
        totals = torch.stack([weight * loss.total for weight, loss in losses])
        return Loss(totals.sum(), losses[0][1].count)


def mixed(alpha: float, hard: Objective, soft: Objective) -> Objective:
    """``alpha`` hard + (1 - ``alpha``) soft; one alone where the other has no share.

    Raises:
        RecipeError: If ``alpha`` is no share.
    """
    if not 0 <= alpha <= 1:
        raise RecipeError(f"the share of the labels is {alpha}, wanted from 0 to 1")
    if alpha in {0, 1}:
        return hard if alpha else soft
    return Weighted([(alpha, hard), (1 - alpha, soft)])


def _counted(values: Tensor, counts: Tensor) -> Tensor:
    """The rows that count; not copied where all do."""
    return values if bool(counts.all()) else values[counts]


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def _logits(student: StudentOutputs) -> Tensor:
    if student.logits is None:
        raise RecipeError("the student has no logits, and a distribution is to be learnt")
    return student.logits


def _same_classes(wanted: Tensor, own: Tensor) -> Tensor:
    if wanted.shape[-1] != own.shape[-1]:
        raise _classes(str(wanted.shape[-1]), own.shape[-1])
    return wanted


def _classes(teachers: str, student: int) -> RecipeError:
    return RecipeError(
        f"the teachers speak of {teachers} classes and the student of {student}",
        hint="one vocabulary, or one list of labels, for all: see docs/distillation.md",
    )
