"""What compression does to the loss, measured on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from toolkit.distill.compressing import Compression, compress
from toolkit.distill.types import Batch, Objective, StudentOutputs, Teacher
from toolkit.errors import RecipeError

__all__ = ["CompressionEffect", "measure_compression"]


@dataclass(frozen=True)
class CompressionEffect:
    """The loss with whole and with compressed targets, of the same student.

    Attributes:
        whole: Mean loss of a row against the teachers' whole distributions.
        compressed: Likewise against what is kept of them; never above, up to rounding.
        largest: The largest difference of a batch's mean loss, of those looked at.
        kept_mass: The mean probability of the classes that are kept.
        classes: The mean number of them.
        rows: That were looked at.
    """

    whole: float
    compressed: float
    largest: float
    kept_mass: float
    classes: float
    rows: int

    @property
    def gap(self) -> float:
        """What the loss is too low by, on average."""
        return self.whole - self.compressed

    def __str__(self) -> str:
        share = self.gap / self.whole if self.whole else 0.0
        return (
            f"{self.classes:.1f} classes of a row keep {self.kept_mass:.2%} of its mass; the loss "
            f"is {self.compressed:.6f} in place of {self.whole:.6f}, {share:.2%} lower (at most "
            f"{self.largest:.2g} in a batch, {self.rows:,} rows looked at)"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "whole": self.whole,
            "compressed": self.compressed,
            "gap": self.gap,
            "largest_gap_of_a_batch": self.largest,
            "kept_mass": self.kept_mass,
            "classes": self.classes,
            "rows": self.rows,
        }


def measure_compression(
    teacher: Teacher,
    student: Callable[[Batch], StudentOutputs],
    objective: Objective,
    batches: Iterable[Batch],
    compression: Compression,
) -> CompressionEffect:
    """Compare the two losses on some batches, without gradients.

    Args:
        teacher: The teachers in memory.
        student: What the student says of a batch.
        objective: A ``WordLevel``, or a sum with one in it.
        batches: The sample.
        compression: How much is kept.

    Raises:
        RecipeError: If the sample has no row that counts, or the targets are no distributions.
    """
    totals = [0.0, 0.0, 0.0, 0.0]
    rows, largest = 0, 0.0
    with torch.no_grad():
        for batch in batches:
            said, full = student(batch), teacher.targets(batch)
            how = compression
            small = compress(full, how.top_k, how.top_p, how.temperature, how.dtype)
            losses = [objective(said, one, batch) for one in (full, small)]
            count = int(losses[0].count)
            if not count:
                continue
            kept = small.kept
            assert kept is not None
            counted = kept[full.mask]
            parts = [float(losses[0].total), float(losses[1].total)]
            parts += [float(counted.exp().sum()), float((~counted.isneginf()).sum())]
            totals = [total + part for total, part in zip(totals, parts, strict=True)]
            largest = max(largest, abs(parts[0] - parts[1]) / count)
            rows += count
    if not rows:
        raise RecipeError("the sample that compression is measured on has no row that counts")
    means = [total / rows for total in totals]
    return CompressionEffect(means[0], means[1], largest, means[2], means[3], rows)
