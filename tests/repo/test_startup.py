"""What is asked of every start loads nothing heavy. (How long it takes is a benchmark.)"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"matplotlib", "numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "torch", "yaml"}

SCRIPT = """
import json, sys
from toolkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print(json.dumps([stop.code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run(*arguments: str) -> tuple[int, set[str], str]:
    """Exit code, imported top-level modules, standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(modules), done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_heavy_module_nor_the_terminal_libraries(option):
    code, modules, _ = run(option)
    assert code == 0
    assert not modules & (HEAVY | {"typer", "click", "rich"})


@pytest.mark.parametrize(
    "command",
    [
        "export",
        "distill",
        "fit-gate",
        "parity",
        "package",
        "bench",
        "serve",
        "inspect",
        "doctor",
        "schema",
    ],
)
def test_the_help_of_a_command_imports_no_heavy_module(command):
    code, modules, _ = run(command, "--help")
    assert code == 0
    assert not modules & HEAVY


def test_an_unknown_command_costs_nothing_and_names_the_nearest():
    code, modules, errors = run("exprot")
    assert code == 2
    assert errors == "error: no command 'exprot'\n\nhint: did you mean toolkit export?\n"
    assert not modules & HEAVY


@pytest.mark.parametrize("package", ["toolkit", "graphs", "toolkit.errors"])
def test_importing_a_package_is_cheap(package):
    script = f"import {package}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {name.partition(".")[0] for name in done.stdout.split()} & HEAVY
