"""The page of tricks is written from the rows that were measured."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import which_trick
from benchmarks.tricks import Task, Trick, rows_of, table, tasks_of

DIGITS = Task("accuracy, %", "16 digits", (Trick("one, 2:4", 94.1, 22_000, 0.5, 10_700_000),))
TEXT = Task(
    "perplexity, lower is better",
    "128 tokens",
    (Trick("one", 31.7, 2_073_000, 2.0, 16_000_000), Trick("int8", 32.5, 914_000, 1.5, 17_000_000)),
)


def test_rows_say_all_that_tables_do():
    rows = [*rows_of(DIGITS, "digits"), *rows_of(TEXT, "text")]
    assert tasks_of(rows) == {"digits": DIGITS, "text": TEXT}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A page with old tables, and what was measured since."""
    rows = [*rows_of(DIGITS, "digits"), *rows_of(TEXT, "text")]
    result = {"rows": [row.as_json() for row in rows]}
    (tmp_path / "which_trick.json").write_text(json.dumps(result))
    monkeypatch.setattr(program, "KEPT", tmp_path)
    (tmp_path / "figures").mkdir()
    page = tmp_path / "page.md"
    marks = [f"<!-- {name} -->\nold\n<!-- end of {name} -->\n" for name in ("digits", "text")]
    page.write_text("before\n" + "between\n".join(marks) + "after\n")
    return page


def test_the_page_keeps_its_words_and_takes_the_tables(kept, monkeypatch):
    monkeypatch.setattr("sys.argv", ["which_trick", "--page", str(kept)])
    which_trick.main()
    text = kept.read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- digits -->\n" + table(DIGITS))
    assert text.endswith(table(TEXT) + "\n<!-- end of text -->\nafter\n")
    assert "| int8 | 32.5 | 914 | 1.5 | 17.0 |" in text
    drawn = (kept.parent / "figures" / "which_trick.svg").read_text()
    assert "perplexity, lower is better" in drawn
