"""The C headers and the Python classes say what the operators' contracts say."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from benchmarks.gpu import reference
from graphs import CONTRACTS
from tests.plugins import host
from tests.plugins.host import SOURCES
from toolkit.errors import PluginError
from toolkit.plugins import Gating

CONFIG = (SOURCES / "config.h").read_text()
HEADER = (SOURCES / "topk_gating.h").read_text()
C_TYPES = {"float*": "float32", "int64_t*": "int64", "unsigned char*": "bool"}
_FIELD = re.compile(r"^    (int|float) (\w+);\s*//\s*(?:= ([\d.]+))?", re.MULTILINE)


def attributes(name: str) -> list[tuple[str, str, object]]:
    """Name, type and default, without those that say where to find a plugin."""
    return [
        (a.name, a.type, a.default)
        for a in CONTRACTS[name].attributes
        if not a.name.startswith("plugin_")
    ]


def struct() -> list[tuple[str, str, object]]:
    return [
        (name, kind, None if default == "" else (float if kind == "float" else int)(default))
        for kind, name, default in _FIELD.findall(CONFIG)
    ]


def parameters(function: str) -> list[tuple[str, str]]:
    """Type and name of a C function's parameters."""
    (text,) = re.findall(rf"int {function}\(([^)]*)\);", HEADER)
    return [
        (kind.removeprefix("const ").strip(), name)
        for kind, name in (part.strip().rsplit(" ", 1) for part in text.split(","))
    ]


def outputs(function: str, first: str) -> list[tuple[str, str]]:
    """Name and dtype of those from ``first`` on that are pointers to numbers."""
    found = [(name, C_TYPES[kind]) for kind, name in parameters(function) if kind in C_TYPES]
    return found[[name for name, _ in found].index(first) :]


def test_the_struct_has_the_attributes_names_types_and_defaults_of_the_contracts():
    *stated, flag = struct()
    assert flag[0] == "grouped"
    assert stated == attributes("GroupedTopKGating") == attributes("GroupedTopKChoice")
    assert stated[:4] == attributes("TopKGating") == attributes("TopKChoice")


@pytest.mark.parametrize("kind", [Gating, reference.Gating])
def test_the_python_classes_have_the_fields_of_the_struct(kind):
    defaults = {name: default for name, _, default in struct()} | {"grouped": 0}
    assert [field.name for field in fields(kind)] == list(defaults)
    made = kind(num_experts=4, k=2)
    for name in list(defaults)[2:]:
        assert getattr(made, name) == defaults[name]


def test_the_functions_give_the_contracts_outputs_in_their_order_and_types():
    given = outputs("toolkit_gating", "weights") + outputs("toolkit_dispatch", "token_of_row")
    for name in ("TopKGating", "GroupedTopKGating"):
        assert given == [(o.name, *o.dtypes) for o in CONTRACTS[name].outputs]
    assert given[2:] == [(o.name, *o.dtypes) for o in CONTRACTS["ExpertDispatch"].outputs]


def test_the_kernels_take_the_contracts_types_but_float64_which_tensorrt_lacks():
    (enum,) = re.findall(r"enum ToolkitType \{([^}]*)\}", HEADER)
    found = {name.lower() for name in re.findall(r"TOOLKIT_(\w+) =", enum)}
    for name in ("TopKGating", "GroupedTopKGating"):
        assert found == set(CONTRACTS[name].inputs[0].dtypes) - {"float64"}


def test_the_limits_are_the_headers():
    from toolkit.plugins.ptx import MAX_EXPERTS, MAX_K

    limits = dict(re.findall(r"TOOLKIT_(MAX_\w+) = (\d+)", CONFIG))
    assert limits == {"MAX_EXPERTS": str(MAX_EXPERTS), "MAX_K": str(MAX_K)}


@pytest.mark.parametrize("grouped", [0, 1])
def test_python_and_c_choose_the_same_path_and_refuse_the_same(lib, grouped):
    for experts in (0, 1, 8, 24, 60, 128, 160, 256, 257, 1024, 1025):
        for k in (0, 1, 8, 9, 32, 33):
            for groups, kept, top in ((1, 1, 1), (8, 4, 2), (5, 2, 1), (3, 4, 1), (4, 1, 3)):
                attributes = (experts, k, 1, 1.0, 1, groups, kept, top, grouped)
                wanted = host.path(lib, reference.Gating(*attributes))
                try:
                    found = Gating(*attributes).path
                except PluginError:
                    found = -1
                assert found == wanted, attributes
