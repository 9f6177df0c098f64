"""Output: data to standard output, progress to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from toolkit.progress import DETAIL, Progress

__all__ = ["note", "pairs", "progress", "show", "table"]

_SECONDS = 20.0  # between two lines about one thing, where there is no terminal


def show(data: object, *, as_json: bool, tables: Sequence[Table | str]) -> None:
    """Print ``data`` as JSON, or the same as tables."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=2, sort_keys=True) + "\n")
        return
    console = Console()
    for item in tables:
        console.print(item)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: int = 0
) -> Table:
    """A plain table; the last ``right`` columns are aligned right."""
    made = Table(title=escape(title), title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        last = index >= len(columns) - right
        made.add_column(column, justify="right" if last else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def pairs(title: str, facts: Mapping[str, Any]) -> Table:
    """A two-column table of names and values."""
    return table(title, ["", ""], list(facts.items()))


def note(text: str) -> None:
    """A line on standard error that is no error."""
    sys.stderr.write(f"note: {text}\n")


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere one line for every new thing, and one now and then of how."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            task = what.partition(DETAIL)[0]
            if task not in tasks:
                tasks[task] = bar.add_task(escape(what), total=total or None)
            bar.update(tasks[task], description=escape(what), completed=done, total=total or None)

        yield report


def _lines() -> Progress:
    told: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        task, _, detail = what.partition(DETAIL)
        now = time.monotonic()
        if task in told and (not detail or now - told[task] < _SECONDS):
            return
        told[task] = now
        place = f" · {done} of {total}" if detail and total else ""
        sys.stderr.write(f"{what}{place}\n")
        sys.stderr.flush()

    return report
