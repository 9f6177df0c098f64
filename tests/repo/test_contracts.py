"""The import contracts cover everything, hold, and are what the architecture page shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.repo.sources import ROOT, python_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = CONFIG["tool"]["importlinter"]["contracts"][0]["layers"]
LAYERED = {name for layer in LAYERS for name in re.findall(r"[\w.]+", layer)}


def test_every_module_of_toolkit_stands_in_a_layer():
    children = {
        "toolkit." + path.with_suffix("").parts[1]
        for path in python_files("toolkit")
        if not path.name.startswith("_") or len(path.parts) > 2
    }
    assert not children - LAYERED


def test_the_contracts_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def imported(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of every absolute import; a plain ``import m`` is (m, '')."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return found


@pytest.mark.parametrize("path", python_files("samples"), ids=str)
def test_samples_use_public_names_only(path):
    tree = ast.parse((ROOT / path).read_text())
    private = [
        f"{module}.{name}"
        for module, name in imported(tree)
        if module.partition(".")[0] in {"toolkit", "graphs"}
        and any(part.startswith("_") for part in f"{module}.{name}".split(".") if part)
    ]
    assert not private
