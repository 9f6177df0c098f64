"""What ``toolkit.engine.api`` says of TensorRT, as rows that can be asked of any release."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import get_type_hints

from toolkit.engine import api, api_reading, enums, refit_api
from toolkit.runtime import tensorrt_api

__all__ = ["HOMES", "LOOKUP", "MODULES", "PROTOCOLS", "Row", "broken", "rows"]

MODULES = (tensorrt_api, api, refit_api)
"""Where protocols stand: of running, of building and of refitting."""
HOMES = {module.__name__ for module in (*MODULES, api_reading, enums)}
"""Modules that protocols are written in; ``api`` hands on those of two more."""
PROTOCOLS = tuple(
    (title, getattr(module, title))
    for module in MODULES
    for title in module.__all__
    if isinstance(getattr(module, title), type)
)
HOMES = {module.__name__ for module in (*MODULES, api_reading, enums)}
"""Where their members are written out."""
_MEMBERS = {api.Member, tensorrt_api.Member}

_RTX, _LATER = "Rtx", "Later"
_CALLED = {"BuilderConfig": "IBuilderConfig", "Severity": "ILogger.Severity", "Member": "DataType"}


@dataclass(frozen=True)
class Row:
    """One name.

    Attributes:
        owner: The class; empty for the module.
        name: The class or member.
        kind: ``class``, ``member`` of an enumeration, ``property``, ``setting`` (a property that
            can be written), ``method``, ``override`` (of a subclass) or ``value``.
        parameters: Of a method, without ``self``.
        rtx: Whether only TensorRT-RTX has it.
        later: Whether the first release that is supported lacks it.
    """

    owner: str
    name: str
    kind: str
    parameters: tuple[str, ...] = ()
    rtx: bool = False
    later: bool = False

    def data(self) -> dict:
        return asdict(self)


def rows() -> Iterator[Row]:
    """Every name of every protocol."""
    for title, protocol in PROTOCOLS:
        rtx, later = title.startswith(_RTX), title.startswith(_LATER)
        name = title.removeprefix(_RTX).removeprefix(_LATER)
        name = _CALLED.get(name, name)
        if title.endswith("Module"):
            for row in _members(protocol, "", rtx):
                if row.name != "__version__":
                    yield Row("", row.name, "value" if row.name.islower() else "class", rtx=rtx)
            if title == "Module":
                yield Row("", "__version__", "value")
            continue
        if later:
            yield from (replace(row, later=True) for row in _members(protocol, name, rtx))
            continue
        yield Row("", name, "class", rtx=rtx)
        yield from _members(protocol, name, rtx)


def _members(protocol: type, owner: str, rtx: bool) -> Iterator[Row]:
    annotations = inspect.get_annotations(protocol)
    hints = get_type_hints(protocol) if owner else {}
    for name in annotations:
        if hints.get(name) in _MEMBERS and name.isupper():
            yield Row(owner, name, "member", rtx=rtx)
        elif hints.get(name) in {api.Severity, tensorrt_api.Severity}:
            yield Row(owner, name, "class", rtx=rtx)
        elif name == "__members__":
            yield Row(owner, name, "value", rtx=rtx)
        else:
            yield Row(owner, name, "setting", rtx=rtx)
    for name, value in vars(protocol).items():
        if isinstance(value, property):
            yield Row(owner, name, "property", rtx=rtx)
        elif inspect.isfunction(value) and _wanted(protocol, name):
            names = tuple(inspect.signature(value).parameters)[1:]
            kind = "override" if getattr(value, "overridden", False) else "method"
            yield Row(owner, name, kind, names, rtx)


def _wanted(protocol: type, name: str) -> bool:
    """A protocol's own ``__init__`` is Python's where it is not written out."""
    ours = vars(protocol)[name].__module__ in HOMES
    return ours and (not name.startswith("__") or name in {"__init__", "__int__"})


LOOKUP = '''
import re

def parameters(function):
    """Of every overload that the docstring of a function of pybind11 writes out."""
    text = function.__doc__ or ""
    name = re.escape(function.__name__)
    found = []
    for inner in re.findall(r"\\\\b" + name + r"\\\\(self: [^,)]+(?:, /)?,? ?(.*?)\\\\) ->", text):
        depth, parts, current = 0, [], ""
        for letter in inner + ",":
            depth += (letter in "[(") - (letter in "])")
            if letter == "," and not depth:
                parts.append(current.strip())
                current = ""
            else:
                current += letter
        found.append([part.partition(":")[0] for part in parts if part and part != "/"])
    return found

def overridden(owner, row):
    """What a subclass writes: bindings tell it in the documentation of the class."""
    shown = re.findall(r"def (\\w+)\\(self(?:, (.*?))?\\):", getattr(owner, "__doc__", None) or "")
    if row["name"] not in dict(shown):
        return "is not documented"
    found = [name.strip() for name in dict(shown)[row["name"]].split(",")]
    return "" if found == list(row["parameters"]) else f"takes {found}"

def wrong(row):
    """Why a release lacks a row; empty where it has it."""
    owner = trt
    for part in filter(None, row["owner"].split(".")):
        owner = getattr(owner, part, None)
    if row["kind"] == "override":
        return overridden(owner, row)
    found = owner
    for part in row["name"].split("."):
        found = getattr(found, part, None)
    if found is None:
        return "is not there"
    kind = row["kind"]
    if kind == "class":
        return "" if isinstance(found, type) else "is no class"
    if kind == "member":
        return "" if row["name"] in owner.__members__ else "is no member"
    if kind in ("property", "setting"):
        if not isinstance(found, property):
            return "is no property"
        return "cannot be written" if kind == "setting" and found.fset is None else ""
    if kind == "method" and row["name"] != "__int__":
        known = parameters(found)
        if not any(each[: len(row["parameters"])] == list(row["parameters"]) for each in known):
            return "takes " + " or ".join(map(str, known))
    return ""

answer = [wrong(row) for row in question]
'''.replace("\\\\", "\\")


def broken(row: Row) -> Iterator[Row]:
    """The row with one of its names misspelled, for each of them."""
    if row.kind != "class" or "." not in row.name:
        yield replace(row, name=row.name + "x")
    if row.owner:
        yield replace(row, owner=row.owner + "x")
    for place, name in enumerate(row.parameters):
        changed = (*row.parameters[:place], name + "x", *row.parameters[place + 1 :])
        yield replace(row, parameters=changed)
