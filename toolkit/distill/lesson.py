"""One batch of training: what student and teacher say of it, as one differentiable sum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.distill.rows import row_labels
from toolkit.distill.speaking import speaking
from toolkit.distill.types import IGNORED, Batch, Objective, Targets, Task

__all__ = ["SUMS", "Lesson"]

# What a lesson adds up, in this order.
SUMS = ("loss", "rows", "nll", "right", "labels")


class Lesson(nn.Module):
    """A student and an objective.

    The objective is computed in ``forward``, where data-parallel wrappers look for the parameters
    that a loss depends on; its projections are among them.
    """

    def __init__(self, speaker: nn.Module, objective: Objective, task: Task) -> None:
        super().__init__()
        self.speaker = speaker
        self.learned = nn.ParameterList(objective.parameters())
        # in a tuple: its parameters are registered once, above
        self._objective = (objective,)
        self._task: Task = task

    def forward(self, batch: Batch, targets: Targets, labels: bool = False) -> Tensor:
        """The five sums of ``SUMS`` over the rows that count, float32 or float64 [5].

        The last three are 0 unless ``labels`` asks for them.
        """
        said = self.speaker(batch)
        device = next(iter(batch.values())).device.type
        # logarithms of small numbers are no matter for half precision
        with torch.autocast(device, enabled=False):
            student = speaking(said, batch, self._task)
            loss = self._objective[0](student, targets, batch)
            judged = _labels(student.logits, student.mask, batch, self._task) if labels else {}
        zero = loss.total.new_zeros(())
        count = loss.count.to(loss.total.dtype)
        more = [judged.get(name, zero).to(loss.total.dtype) for name in SUMS[2:]]
        return torch.stack([loss.total, count, *more])

    @staticmethod
    def student(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the lesson's weights the student's, named as in its speaker."""
        start = "speaker."
        return {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}


def _labels(logits: Tensor | None, mask: Tensor, batch: Batch, task: Task) -> dict[str, Tensor]:
    wanted = row_labels(task, batch)
    if logits is None or wanted is None:
        return {}
    counts = mask & (wanted != IGNORED)
    rows, labels = logits[counts], wanted[counts]
    return {
        "nll": functional.cross_entropy(rows, labels, reduction="sum"),
        "right": (rows.argmax(-1) == labels).sum(),
        "labels": counts.sum(),
    }
