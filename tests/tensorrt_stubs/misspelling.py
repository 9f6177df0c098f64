"""A module's source with one of TensorRT's names misspelled, for each place where one stands."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.tensorrt_stubs.surface import rows

__all__ = ["NAMES", "mutants", "survives"]

NAMES = {row.name.rpartition(".")[2] for row in rows()} - {"__init__", "__int__", "name"}


class _Misspell(ast.NodeTransformer):
    """Renames the attribute, or the method of a subclass, at one place."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.seen = -1
        self.name = ""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return self._changed(node, "attr")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        return self._changed(node, "name")

    def _changed(self, node: ast.AST, field: str) -> ast.AST:
        if getattr(node, field) in NAMES:
            self.seen += 1
            if self.seen == self.place:
                self.name = getattr(node, field)
                setattr(node, field, self.name + "x")
        return node


def mutants(source: Path, name: str) -> Iterator[tuple[str, types.ModuleType]]:
    """The misspelled name, and the module called ``name`` that has it."""
    text = source.read_text()
    place = 0
    while True:
        change = _Misspell(place)
        tree = change.visit(ast.parse(text))
        if not change.name:
            return
        module = types.ModuleType(name)
        known = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses look themselves up
        try:
            exec(compile(tree, str(source), "exec"), vars(module))
        finally:
            sys.modules.pop(name)
            if known is not None:
                sys.modules[name] = known
        yield change.name, module
        place += 1


def survives(scenarios: Iterable[Callable[[Any], None]], code: Any) -> bool:
    """Whether code, a name of which may be wrong, passes every scenario."""
    try:
        for scenario in scenarios:
            scenario(code)
    except Exception:  # noqa: BLE001  (whatever a wrong name leads to)
        return False
    return True
