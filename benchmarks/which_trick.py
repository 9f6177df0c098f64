"""Merge, distil, ensemble, experts, 2:4, int8: the same digits and the same text, two tables.

python -m benchmarks which_trick
python -m benchmarks.which_trick --page docs/which-trick.md   # and the page with its plot
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import tricks_digits, tricks_text
from benchmarks.rows import Row
from benchmarks.tricks import Judge, Trick, draw, measure, rows_of, table

__all__ = ["run"]

TASKS = {"digits": tricks_digits.ship, "text": tricks_text.ship}


def run(*, quick: bool) -> list[Row]:
    """Quality, size, latency and memory of each trick on both tasks."""
    found = tricks(quick=quick)
    return [row for task, (each, judge) in found.items() for row in rows_of(each, judge, task)]


def tricks(*, quick: bool) -> dict[str, tuple[list[Trick], Judge]]:
    """Train, ship in every way, measure."""
    found = {}
    for task, ship in TASKS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths, judge = ship(folder, quick=quick)
            found[task] = measure(paths, judge, folder, repeats=31 if quick else 301), judge
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure every trick and rewrite the page.")
    parser.add_argument("--page", type=Path, default=Path("docs/which-trick.md"))
    page = parser.parse_args().page
    found = tricks(quick=False)
    draw(found, page.parent / "figures" / "which_trick.svg")
    text = page.read_text(encoding="utf-8")
    for task, (each, judge) in found.items():
        start, end = text.index(f"<!-- {task} -->"), text.index(f"<!-- end of {task} -->")
        text = f"{text[:start]}<!-- {task} -->\n{table(each, judge)}\n{text[end:]}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
