"""A result as a table on the terminal, and all results as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, cells, headings

__all__ = ["body", "page", "rows_from", "show"]

INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. A ratio compares two things measured in the same run, in
turns; its value is the median over the rounds and its spread the smallest and the largest. A bound
that does not hold makes the command exit with 1.
"""


def show(result: Mapping[str, Any]) -> None:
    """Print one result to stdout."""
    table = Table(title=result["command"], caption=_where(result), caption_justify="left")
    for heading in headings(rows_from(result)):
        right = heading not in {"metric", "unit", "holds"}
        table.add_column(heading, justify="right" if right else "left")
    for row in cells(rows_from(result)):
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page of all results."""
    return "\n".join([INTRODUCTION, *(_section(result) for result in results)])


def _section(result: Mapping[str, Any]) -> str:
    """One result under a heading."""
    return f"## {result['benchmark']}\n\n{body(result)}"


def body(result: Mapping[str, Any]) -> str:
    """What stands under a result's heading."""
    columns = headings(rows_from(result))
    lines = [
        "```bash",
        result["command"],
        "```",
        "",
        "| " + " | ".join(columns) + " |",
        "|---|--:|--:|---|--:|---|" + "--:|" * (len(columns) - 6),
        *("| " + " | ".join(row) + " |" for row in cells(rows_from(result))),
        "",
        _where(result),
        "",
    ]
    return "\n".join(lines)


def rows_from(result: Mapping[str, Any]) -> list[Row]:
    """The rows that a result was made of."""
    names = ("metric", "value", "unit", "spread", "bound", "floor", "beside")
    return [Row(**{name: row[name] for name in names}) for row in result["rows"]]


def _where(result: Mapping[str, Any]) -> str:
    place = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['date']}: {place['processor']}, {place['cores']} cores, {place['memory']}, "
        f"{place['system']}. "
        f"{packages}."
    )
