"""A TensorRT that records: it has the names of the protocols here and no others.

They stand in ``toolkit.engine.api`` and ``refit_api``, and in ``toolkit.runtime.tensorrt_api``.

That those names are the real ones, another test asks NVIDIA's bindings; so a call that the real API
lacks fails here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, get_args, get_type_hints

from tests.tensorrt_stubs.surface import HOMES
from toolkit.engine import api

__all__ = ["Call", "made"]

Call = tuple[Any, ...]
_ENUMERATIONS = (
    api.BuilderFlag, api.MemoryPoolType, api.NetworkDefinitionCreationFlag, api.DataType,
    api.Severity, api.HardwareCompatibilityLevel, api.ProfilingVerbosity, api.LayerType,
    api.TensorIOMode, api.LayerInformationFormat,
)  # fmt: skip
_LATER = (api.LaterHardwareCompatibilityLevel, api.LaterNetworkDefinitionCreationFlag)


class Member:
    """A member of an enumeration; its number is as little to be relied on as the real one."""

    def __init__(self, owner: str, name: str, number: int) -> None:
        self._said = f"{owner}.{name}"
        self.name = name
        self._number = number

    def __int__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        return self._said


def _enumeration(protocol: type, more: tuple[type, ...] = ()) -> Any:
    title = protocol.__name__
    names = [name for each in (protocol, *more) for name in each.__annotations__]
    members = {name: Member(title, name, i + 3) for i, name in enumerate(names)}
    return _closed(title, members)


def _closed(title: str, attributes: Mapping[str, Any], settings: tuple[str, ...] = ()) -> Any:
    """An object with these attributes; others cannot be read, and only settings be written."""

    def write(self: Any, name: str, value: Any) -> None:
        if name not in settings:
            raise AttributeError(f"{title} has no attribute {name!r} to write")
        object.__setattr__(self, name, value)

    made = type(title, (), {"__setattr__": write})()
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


class Recorder:
    """Makes objects of the protocols; ``answers`` are what members give instead of a default."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.calls: list[Call] = []
        self.answers = answers

    def object(self, protocol: type) -> Any:
        """An object whose calls and settings are recorded."""
        recorder, title = self, protocol.__name__
        body: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for base in reversed(protocol.__mro__):
            if base.__module__ not in HOMES:
                continue
            settings.update(inspect.get_annotations(base))
            for name, value in vars(base).items():
                if isinstance(value, property):
                    body[name] = property(lambda self, name=name: recorder.value(title, name, None))
                elif inspect.isfunction(value) and not name.startswith("_"):
                    body[name] = self._method(title, name, value)

        def write(self: Any, name: str, value: Any) -> None:
            if name not in settings:
                raise AttributeError(f"{title} has no attribute {name!r} to write")
            recorder.calls.append((title, name, value))

        return type(title, (), {**body, "__setattr__": write})()

    def _method(self, title: str, name: str, declared: Any) -> Any:
        signature = inspect.signature(declared)
        gives = get_type_hints(declared).get("return")

        def call(this: Any, *arguments: Any, **named: Any) -> Any:
            bound = signature.bind(this, *arguments, **named)
            self.calls.append((title, name, *list(bound.arguments.values())[1:]))
            return self.value(title, name, gives, *arguments)

        return call

    def value(self, title: str, name: str, gives: Any, *arguments: Any) -> Any:
        answer = self.answers.get(f"{title}.{name}")
        if answer is not None:
            return answer(*arguments) if callable(answer) else answer
        if type(None) in get_args(gives):  # as good as what is there
            gives = next(each for each in get_args(gives) if each is not type(None))
        defaults = {bool: True, int: 0, str: "", type(None): None}
        if gives in defaults:
            return defaults[gives]
        if gives is None:
            raise AssertionError(f"the test must say what {title}.{name} gives")
        return self.object(gives)


def made(
    version: str, answers: Mapping[str, Any], *, rtx: bool = False, source: ModuleType = api
) -> tuple[Any, list[Call]]:
    """A module of a version, and the list of calls that it fills.

    Classes are those of ``source`` where it has them: it asks other things of them than building.
    """
    recorder = Recorder(answers)
    attributes: dict[str, Any] = {"__version__": version}
    for protocol in _ENUMERATIONS:
        later = tuple(each for each in _LATER if protocol in each.__mro__)
        more = () if version.startswith("10.8.") else later
        own = getattr(source, protocol.__name__, protocol)
        attributes[protocol.__name__] = _enumeration(own, more)
    severity = attributes.pop("Severity")
    noted = {"__init__": _noted(recorder)}
    attributes["ILogger"] = type("ILogger", (), {"Severity": severity, **noted})
    for title in ("IProgressMonitor", "IOutputAllocator"):
        attributes[title] = type(title, (), noted)
    config = api.RtxBuilderConfig if rtx else api.IBuilderConfig
    recorder.answers = {
        "Builder.create_builder_config": lambda: recorder.object(config), **answers,
    }  # fmt: skip
    for title in ("Builder", "OnnxParser", "Runtime", "Refitter", "Weights"):
        protocol = getattr(source, title, None) or getattr(api, title, None)
        if protocol is not None:
            attributes[title] = _constructor(recorder, protocol)
    attributes["get_plugin_registry"] = lambda: recorder.object(api.IPluginRegistry)
    if rtx:
        members = {f"SM{n}": Member("ComputeCapability", f"SM{n}", n) for n in (86, 89, 120)}
        attributes["ComputeCapability"] = _closed(
            "ComputeCapability",
            {"__members__": members | {"CURRENT": Member("ComputeCapability", "CURRENT", 0)}},
        )
    return _closed("module", attributes), recorder.calls


def _noted(recorder: Recorder) -> Any:
    def init(self: Any) -> None:
        recorder.calls.append((type(self).__mro__[-2].__name__, "__init__"))

    return init


def _constructor(recorder: Recorder, protocol: type) -> Any:
    signature = inspect.signature(protocol.__init__)  # type: ignore[misc]

    def construct(*arguments: Any) -> Any:
        signature.bind(None, *arguments)
        recorder.calls.append((protocol.__name__, "__init__"))
        answer = recorder.answers.get(f"{protocol.__name__}.__init__")
        return answer(*arguments) if answer else recorder.object(protocol)

    return construct
