"""A table of students over several seeds, with standard errors and gains over the first row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

__all__ = ["error", "gain", "table"]


def error(values: Sequence[float]) -> float:
    """The standard error of a mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def gain(values: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the differences, seed by seed: splits differ, pairs do not."""
    apart = [one - other for one, other in zip(values, base, strict=True)]
    return statistics.mean(apart), error(apart)


def table(rows: Mapping[str, Sequence[float]], base: str, unit: str) -> str:
    """As Markdown.

    Args:
        rows: Figures of each seed.
        base: The row that gains are over.
        unit: What figures are.
    """
    lines = [f"| | {unit} | standard error | gain | its standard error | gain in errors |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for name, values in rows.items():
        start = f"| {name} | {statistics.mean(values):.2f} | {error(values):.2f} |"
        if name == base:
            lines.append(f"{start} | | |")
            continue
        mean, spread = gain(values, rows[base])
        ratio = f"{mean / spread:+.1f}" if spread else ""
        lines.append(f"{start} {mean:+.2f} | {spread:.2f} | {ratio} |")
    return "\n".join(lines)
