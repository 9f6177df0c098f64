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
        rows: Every member, uniform weights, the fitted constants, and the gate.
        weights: The constants, in the members' order.
        out: The gate's weight file, if a gate was trained.
        fit: How its training went.
        text: Whether the labels are the next tokens of texts.
    """

    rows: tuple[FitRow, ...]
    weights: tuple[float, ...]
    out: Path | None = None
    fit: GateFit | None = None
    text: bool = False

    @property
    def worse(self) -> bool:
        """Whether the gate validates worse than constant weights."""
        found = {row.name: row.validation.nll for row in self.rows}
        return self.fit is not None and found["gate"] > found["constant weights"]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {"name": row.name, "fitted": _json(row.fitted), "validation": _json(row.validation)}
            for row in self.rows
        ]
        gate = None
        if self.fit is not None:
            gate = {"out": str(self.out), "epoch": self.fit.epoch, "epochs": self.fit.epochs}
        return {
            "rows": rows,
            "weights": list(self.weights),
            "gate": gate,
            "worse_than_constants": self.worse,
        }


def _json(found: Score) -> dict[str, Any]:
    return {
        "nll": found.nll, "perplexity": found.perplexity,
        "accuracy": found.accuracy, "labels": found.count,
    }  # fmt: skip
