"""How a distillation went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from toolkit.distill import CompressionEffect
from toolkit.distill.options import LoopReport

if TYPE_CHECKING:
    from toolkit.pipeline.distilling import Distillation

__all__ = ["DistilReport", "teacher_sizes"]


@dataclass(frozen=True)
class DistilReport:
    """How a distillation went.

    Attributes:
        out: The checkpoint.
        task: What the student is for.
        parameters: Of the student.
        teachers: Parameters of all teachers' files together, with their names.
        rows: To learn from and held out.
        training: Of the loop.
        effect: What keeping a part of the teachers' words did to the loss; None without a cache.
    """

    out: Path
    task: str
    parameters: int
    teachers: dict[str, int]
    rows: tuple[int, int]
    training: LoopReport
    effect: CompressionEffect | None = None

    @classmethod
    def of(
        cls,
        what: Distillation,
        training: LoopReport,
        speaker: nn.Module,
        effect: CompressionEffect | None,
        out: Path,
    ) -> DistilReport:
        """Put together what is known."""
        rows = (len(what.examples.train), len(what.examples.held))
        count = sum(p.numel() for p in speaker.parameters())
        return cls(out, what.student.task, count, teacher_sizes(what), rows, training, effect)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "out": str(self.out),
            "task": self.task,
            "parameters": self.parameters,
            "teachers": self.teachers,
            "rows": {"train": self.rows[0], "held_out": self.rows[1]},
            "training": self.training.to_json(),
            "compression": None if self.effect is None else self.effect.to_json(),
        }


def teacher_sizes(what: Distillation) -> dict[str, int]:
    """Parameters of every teacher by name, read off the headers of their files."""
    found = {}
    for name, leaf in what.teachers.leaves():
        checkpoint = leaf.checkpoint()
        if checkpoint is not None:
            found[name] = sum(_product(entry.shape) for _, entry in checkpoint.tensors.values())
    return found


def _product(shape: tuple[int, ...]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found
