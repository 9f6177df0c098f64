"""Files and functions stay short enough to be read in one sitting."""

from __future__ import annotations

import ast
import re

import pytest

from tests.repo.sources import ROOT, python_files, tracked

LONGEST_FILE = 350
LONGEST_FUNCTION = 60
CODE = python_files("toolkit", "graphs", "samples", "benchmarks")


def functions(text: str) -> list[tuple[str, int]]:
    """Name and number of lines of each function, its decorators left out."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return [(node.name, node.end_lineno - node.lineno + 1) for node in nodes]


@pytest.mark.parametrize("path", CODE, ids=str)
def test_files_and_functions_are_short(path):
    text = (ROOT / path).read_text()
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines"
    long = {name: length for name, length in functions(text) if length > LONGEST_FUNCTION}
    assert not long, f"{path} has functions of more than {LONGEST_FUNCTION} lines: {long}"


def test_nothing_is_left_to_be_done_later():
    # Written apart, so that this file does not find itself.
    marks = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|X" + "XX)\\b")
    found = [
        f"{path}:{number}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".j2", ".css", ".ipynb"}
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found
