"""Merge, distil, ensemble, experts, 2:4, int8: the same digits and the same text, two tables.

python -m benchmarks which_trick
python -m benchmarks.which_trick --page docs/which-trick.md   # the page of that, with its plot
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import tricks_digits, tricks_text
from benchmarks.__main__ import result_of
from benchmarks.report import rows_from
from benchmarks.rows import Row
from benchmarks.tricks import draw, measure, rows_of, table, tasks_of

__all__ = ["run"]

TASKS = {"digits": tricks_digits.ship, "text": tricks_text.ship}


def run(*, quick: bool) -> list[Row]:
    """Quality, size, latency and memory of each trick on both tasks: train, ship, measure."""
    rows: list[Row] = []
    for name, ship in TASKS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            paths, judge = ship(folder, quick=quick)
            rows += rows_of(measure(paths, judge, folder, repeats=31 if quick else 301), name)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the page of what was measured last.")
    parser.add_argument("--page", type=Path, default=Path("docs/which-trick.md"))
    page = parser.parse_args().page
    tasks = tasks_of(rows_from(result_of("which_trick", kept=True)))
    draw(tasks, page.parent / "figures" / "which_trick.svg")
    text = page.read_text(encoding="utf-8")
    for name, task in tasks.items():
        start, end = text.index(f"<!-- {name} -->"), text.index(f"<!-- end of {name} -->")
        text = f"{text[:start]}<!-- {name} -->\n{table(task)}\n{text[end:]}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
