"""What ``fit-gate`` found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.fitting import GateFit, Score

__all__ = ["FitReport", "FitRow"]


@dataclass(frozen=True)
class FitRow:
    """One combination: how it does on what was fitted and on the validation split."""

    name: str
    fitted: Score
    validation: Score


@dataclass(frozen=True)
class FitReport:
    """What was fitted.

    Attributes:
        rows: Every member, uniform weights, the fitted constants, and the gate; or every stage
            that gives a distribution, their uniform mixture, and the combiner.
        weights: The constants, in the members' order; none for a stack.
        out: The weight file of what was trained, if anything was.
        fit: How its training went.
        text: Whether the labels are the next tokens of texts.
    """

    rows: tuple[FitRow, ...]
    weights: tuple[float, ...]
    out: Path | None = None
    fit: GateFit | None = None
    text: bool = False

    @property
    def trained(self) -> str:
        """What was trained: the gate or the combiner."""
        return "gate" if self.weights else "combiner"

    @property
    def rival(self) -> FitRow | None:
        """What the gate must beat, constant weights; or the combiner: the best that is no fit."""
        if self.weights:
            return next(row for row in self.rows if row.name == "constant weights")
        return min(self.rows[:-1], key=lambda row: row.validation.nll, default=None)

    @property
    def worse(self) -> bool:
        """Whether what was trained validates worse than its rival."""
        if self.fit is None or self.rival is None:
            return False
        return self.rows[-1].validation.nll > self.rival.validation.nll

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {"name": row.name, "fitted": _json(row.fitted), "validation": _json(row.validation)}
            for row in self.rows
        ]
        made = None
        if self.fit is not None:
            made = {"out": str(self.out), "epoch": self.fit.epoch, "epochs": self.fit.epochs}
        if not self.weights:
            best = None if self.rival is None else self.rival.name
            return {"rows": rows, "combiner": made, "rival": best, "worse_than_rival": self.worse}
        return {
            "rows": rows,
            "weights": list(self.weights),
            "gate": made,
            "worse_than_constants": self.worse,
        }


def _json(found: Score) -> dict[str, Any]:
    return {
        "nll": found.nll, "perplexity": found.perplexity,
        "accuracy": found.accuracy, "labels": found.count,
    }  # fmt: skip
