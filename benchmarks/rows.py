"""Rows: what a benchmark measured, and whether that is within its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Ratio

__all__ = ["Row", "cells", "headings"]


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        metric: What was measured.
        value: The median.
        unit: Its unit; ``x`` for a ratio.
        spread: The smallest and the largest of the repeats, where it was repeated.
        bound: The largest value that is accepted; None for a figure shown beside others.
        floor: The smallest value that is accepted; None likewise.
        beside: The same figure for peers, each a column of its own.
    """

    metric: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    bound: float | None = None
    floor: float | None = None
    beside: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, metric: str, found: Ratio, bound: float | None = None) -> Row:
        """A row for a ratio."""
        return cls(metric, found.median, "x", (found.low, found.high), bound)

    @property
    def holds(self) -> bool:
        """Whether the value is within its bounds; true of a row without one."""
        high = self.bound is None or self.value <= self.bound
        return high and (self.floor is None or self.value >= self.floor)

    def as_json(self) -> dict[str, object]:
        """The row for ``--json``."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "spread": self.spread,
            "bound": self.bound,
            "floor": self.floor,
            "beside": dict(self.beside),
            "holds": self.holds,
        }


_HEADINGS = ("metric", "value", "spread", "unit", "bound", "holds")


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of these rows: every row's, then one for each peer."""
    return (*_HEADINGS, *dict.fromkeys(name for row in rows for name in row.beside))


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of ``headings``."""
    peers = headings(rows)[len(_HEADINGS) :]
    return [
        (
            row.metric,
            _figure(row.value),
            "" if row.spread is None else f"{_figure(row.spread[0])} to {_figure(row.spread[1])}",
            row.unit,
            _bounds(row),
            "" if row.bound is None and row.floor is None else "yes" if row.holds else "NO",
            *(_figure(row.beside[name]) if name in row.beside else "" for name in peers),
        )
        for row in rows
    ]


def _bounds(row: Row) -> str:
    low = [] if row.floor is None else [f">= {row.floor:g}"]
    high = [] if row.bound is None else [f"<= {row.bound:g}"]
    return ", ".join(low + high)


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
