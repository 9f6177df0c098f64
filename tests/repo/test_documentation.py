"""What the documentation shows is true: commands parse, recipes are valid, files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.repo.sources import ROOT, tracked
from toolkit.cli.app import build
from toolkit.cli.table import COMMANDS
from toolkit.recipe import LoadContext, parse_recipe

PAGES = [path for path in tracked() if path.suffix == ".md" and path.parts[0] != "tests"]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def fences(*languages: str) -> list[tuple[Path, str]]:
    """The fenced blocks of the given languages in every page."""
    return [
        (path, body)
        for path in PAGES
        for language, body in _FENCE.findall((ROOT / path).read_text())
        if language in languages
    ]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Every shown call of a program: its text, for the test's name, and its arguments.

    In a console block a command stands after ``$``; the rest is output.
    """
    found = []
    for path, body in fences("console", "bash", "sh"):
        lines = body.replace("\\\n", " ").splitlines()
        prompted = any(line.startswith("$ ") for line in lines)
        for line in lines:
            if prompted and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and Path(words[0]).name == program:
                found.append((f"{path}: {' '.join(words)}", words[1:]))
    return found


def names(shown: list[tuple[str, list[str]]]) -> list[str]:
    return [name for name, _ in shown]


TOOLKIT = commands("toolkit")
MAKE = commands("make")


def test_the_readme_shows_the_two_make_commands_first_and_then_the_main_job():
    made = [arguments for name, arguments in MAKE if name.startswith("README.md")]
    assert made[:2] == [["demo"], ["test"]]
    assert TOOLKIT[0][1][0] == "export"


@pytest.mark.parametrize(("_name", "arguments"), TOOLKIT, ids=names(TOOLKIT))
def test_every_toolkit_command_shown_parses(_name, arguments):
    if arguments[0].startswith("-"):
        assert arguments[0] in {"--help", "--version", "--install-completion"}
        return
    name, *rest = arguments
    assert name in COMMANDS
    typer.main.get_command(build(name)).make_context(name, rest)


@pytest.mark.parametrize(("_name", "arguments"), TOOLKIT, ids=names(TOOLKIT))
def test_files_of_this_repository_that_a_command_names_exist(_name, arguments):
    ours = [word for word in arguments if word.split("/")[0] in {"samples", "docs", "benchmarks"}]
    assert [word for word in ours if not (ROOT / word).exists()] == []


@pytest.mark.parametrize(("_name", "arguments"), MAKE, ids=names(MAKE))
def test_every_make_target_shown_exists(_name, arguments):
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    assert {word for word in arguments if "=" not in word} <= targets


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_links_to_files_lead_somewhere(path):
    links = _LINK.findall((ROOT / path).read_text())
    files = [link.partition("#")[0] for link in links if "://" not in link]
    missing = [link for link in files if link and not (ROOT / path.parent / link).exists()]
    assert not missing


def recipes() -> list[tuple[str, str]]:
    shown = [(f"{path}", body) for path, body in fences("yaml") if body.startswith("model:")]
    samples = [path for path in tracked() if path.match("samples/recipes/*.yaml")]
    return shown + [(str(path), (ROOT / path).read_text()) for path in samples]


@pytest.mark.parametrize(("name", "text"), recipes(), ids=[name for name, _ in recipes()])
def test_every_recipe_shown_is_valid(name, text, tmp_path):
    # Where the models lie is the reader's business.
    context = LoadContext(root=tmp_path, explicit_root=False, allow_code=True, check_files=False)
    parse_recipe(text, name, context)
