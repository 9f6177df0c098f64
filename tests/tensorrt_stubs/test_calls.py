"""What the engine stage calls, on a double that has the real names and no others."""

from __future__ import annotations

import ast
import sys
import types

import pytest

from tests.tensorrt_stubs.playing import Code
from tests.tensorrt_stubs.scenarios import SCENARIOS, SOURCES
from tests.tensorrt_stubs.surface import rows
from toolkit.engine import (
    configuring,
    diagnosis,
    network,
    opening,
    plugging,
    readback,
    timing,
    worker,
)

NAMES = {row.name.rpartition(".")[2] for row in rows()} - {"__init__", "__int__", "name"}
REAL = Code(
    network=network, worker=worker, diagnosis=diagnosis, configuring=configuring,
    readback=readback, timing=timing, plugging=plugging, opening=opening,
)  # fmt: skip
# What ``network`` takes from each of the others.
TAKEN = {
    "diagnosis": "parser_message", "configuring": "configure", "readback": "network_facts",
    "timing": "attach_cache", "plugging": "load_plugins",
}  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__[1:])
def test_every_flavour_and_major_is_told_the_same_in_its_own_words(scenario):
    scenario(REAL)


class Misspell(ast.NodeTransformer):
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


def mutants(name: str):
    """The module with one name misspelled, for each place where a name of TensorRT stands."""
    text = SOURCES[name].read_text()
    place = 0
    while True:
        change = Misspell(place)
        tree = change.visit(ast.parse(text))
        if not change.name:
            return
        module = types.ModuleType(f"toolkit.engine.{name}_misspelled")
        sys.modules[module.__name__] = module  # dataclasses look themselves up
        exec(compile(tree, str(SOURCES[name]), "exec"), vars(module))
        del sys.modules[module.__name__]
        yield change.name, module
        place += 1


def survives(code: Code) -> bool:
    try:
        for scenario in SCENARIOS:
            scenario(code)
    except Exception:  # noqa: BLE001  (whatever a wrong name leads to)
        return False
    return True


def test_no_name_can_be_misspelled_unseen(monkeypatch):
    tried: list[str] = []
    unseen: list[str] = []
    for name in SOURCES:
        for word, module in mutants(name):
            tried.append(word)
            code = Code(**{**vars(REAL), name: module})
            with monkeypatch.context() as patched:
                if name in TAKEN:
                    patched.setattr(network, TAKEN[name], getattr(module, TAKEN[name]))
                if survives(code):
                    unseen.append(f"{name}: {word}")
    assert unseen == []
    assert len(tried) >= 110
    assert {
        "STRONGLY_TYPED",
        "clear_flag",
        "set_shape",
        "phase_start",
        "desc",
        "combine",
        "get_shape",
        "INPUT",
    } <= set(tried)
