"""Help, version, unknown commands and completion."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from toolkit import __version__
from toolkit.cli import app as app_module
from toolkit.cli.table import COMMANDS, help_text
from toolkit.errors import Interrupted


def test_help_lists_every_command_with_its_summary(run):
    found = run("--help")
    assert (found.code, found.out, found.err) == (0, help_text() + "\n", "")
    for name, command in COMMANDS.items():
        assert f"  {name} " in found.out
        assert command.summary in found.out
    assert max(map(len, found.out.splitlines())) <= 100


def test_version(run):
    assert run("--version").out == f"toolkit {__version__}\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(run, name):
    found = run(name, "--help")
    assert found.code == 0
    assert f"toolkit {name}" in found.out


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_reporting_command_takes_json(run, name):
    assert "--json" in run(name, "--help").out


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ([], "no command given", "one of export"),
        (["exprot"], "no command 'exprot'", "did you mean toolkit export?"),
        (["zzz"], "no command 'zzz'", "one of export"),
        (["export"], "missing argument 'RECIPE'", "toolkit export --help"),
        (["export", "a", "b"], "got unexpected extra argument", "toolkit export --help"),
        (["export", "a", "--taget", "onnx"], "no such option: --taget", "toolkit export --help"),
        (["export", "a", "--target", "cpu"], "invalid value for '--target'", "toolkit export"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(run, arguments, error, hint):
    found = run(*arguments)
    assert found.code == 2
    assert found.out == ""
    first, blank, last = found.err.rstrip("\n").split("\n")
    assert first.startswith(f"error: {error}")
    assert blank == ""
    assert last.startswith(f"hint: {hint}")


def test_help_of_a_command_loads_nothing_heavy():
    code = (
        "import sys\nfrom toolkit.cli import main\n"
        "try:\n    main(['export', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'numpy', 'pydantic', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_completion_knows_the_commands():
    import os

    environment = {
        **os.environ, "_TOOLKIT_COMPLETE": "complete_bash", "COMP_WORDS": "toolkit ex",
        "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "toolkit ex",
    }  # fmt: skip
    code = "from toolkit.cli import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["export"], done.stderr


def failing(error):
    def command():
        raise error

    return command


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(app_module, "_function", lambda name: failing(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError, match="bug"):
        app_module.run_one("doctor", [])


def test_interrupt_is_said_and_exits_130(monkeypatch, capsys):
    monkeypatch.setattr(app_module, "_function", lambda name: failing(KeyboardInterrupt()))
    assert app_module.run_one("doctor", []) == 130
    assert capsys.readouterr().err.startswith("error: interrupted\n\nhint: nothing was left behind")


def test_an_interrupt_that_keeps_work_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setattr(app_module, "_function", lambda name: failing(Interrupted("go on so")))
    assert app_module.run_one("doctor", []) == 130
    assert capsys.readouterr().err == "error: interrupted\n\nhint: go on so\n"


def test_abort_is_an_interrupt(monkeypatch, capsys):
    monkeypatch.setattr(app_module, "_function", lambda name: failing(typer.Abort()))
    assert app_module.run_one("doctor", []) == 130
    assert "interrupted" in capsys.readouterr().err
