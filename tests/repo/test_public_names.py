"""`__all__` is true, and the errors' docstring names them all."""

from __future__ import annotations

import ast
import importlib

import pytest

import graphs
import toolkit.errors
from tests.repo.sources import ROOT, python_files

# A module with a leading underscore, or one that is run rather than imported, has no public names.
MODULES = [
    path
    for path in python_files("toolkit", "graphs")
    if path.name == "__init__.py" or not path.name.startswith("_")
]


def dotted(path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in tree.body if isinstance(node, kinds)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_all_names_exist_and_none_is_listed_twice(path):
    # Their order is ruff's business (RUF022).
    module = importlib.import_module(dotted(path))
    tree = ast.parse((ROOT / path).read_text())
    assert hasattr(module, "__all__") or not public_definitions(tree), "it has no __all__"
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_public_definition_of_a_module_is_in_its_all(path):
    tree = ast.parse((ROOT / path).read_text())
    module = importlib.import_module(dotted(path))
    unlisted = public_definitions(tree) - set(getattr(module, "__all__", []))
    assert not unlisted, "give it an underscore or list it"


def test_graphs_lists_exactly_the_names_it_resolves_on_first_use():
    assert sorted(graphs._HOMES) == sorted(set(graphs.__all__) - {"GraphError"})
    with pytest.raises(AttributeError, match="module 'graphs' has no attribute 'nothing'"):
        graphs.nothing  # noqa: B018


@pytest.mark.parametrize("name", toolkit.errors.__all__)
def test_every_error_stands_in_the_tree_of_the_errors_docstring(name):
    line = next(
        (line for line in toolkit.errors.__doc__.splitlines() if f"``{name}``" in line), None
    )
    assert line is not None
    code = getattr(toolkit.errors, name).exit_code
    stated = f"(exit {code})" in line
    assert stated or code == 1, f"its line does not say (exit {code})"
