"""Rows: what a benchmark measured, and whether that is within its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Ratio

__all__ = ["Row", "cells"]


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        metric: What was measured.
        value: The median.
        unit: Its unit; ``x`` for a ratio.
        spread: The smallest and the largest of the repeats, where it was repeated.
        bound: The largest value that is accepted; None for a figure shown beside others.
    """

    metric: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    bound: float | None = None

    @classmethod
    def of(cls, metric: str, found: Ratio, bound: float | None = None) -> Row:
        """A row for a ratio."""
        return cls(metric, found.median, "x", (found.low, found.high), bound)

    @property
    def holds(self) -> bool:
        """Whether the value is within its bound; true of a row without one."""
        return self.bound is None or self.value <= self.bound

    def as_json(self) -> dict[str, object]:
        """The row for ``--json``."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "spread": self.spread,
            "bound": self.bound,
            "holds": self.holds,
        }


HEADINGS = ("metric", "value", "spread", "unit", "bound", "holds")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of ``HEADINGS``."""
    return [
        (
            row.metric,
            _figure(row.value),
            "" if row.spread is None else f"{_figure(row.spread[0])} to {_figure(row.spread[1])}",
            row.unit,
            "" if row.bound is None else f"<= {row.bound:g}",
            "" if row.bound is None else "yes" if row.holds else "NO",
        )
        for row in rows
    ]


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
