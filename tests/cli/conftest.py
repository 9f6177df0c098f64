"""The command line, run in this process, in a workshop of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workshop import write_recipe, write_workshop
from toolkit.cli import main


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Call ``toolkit`` with arguments."""

    def call(*arguments: object) -> Run:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        found = capsys.readouterr()
        return Run(int(exit_.value.code or 0), found.out, found.err)

    return call


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """The working directory: a workshop with ``recipe.yaml``."""
    folder = write_workshop(tmp_path / "shop")
    write_recipe(folder)
    monkeypatch.chdir(folder)
    return folder
