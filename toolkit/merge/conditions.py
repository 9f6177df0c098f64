"""A parameter's value as it is written: a scalar, a gradient, or conditions on tensor names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

__all__ = ["Conditional", "Gradient", "Scalar", "Setting", "Settings"]

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+$")

Scalar = bool | int | float | str
Gradient = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains ``filter``; for all without one."""

    value: Gradient
    filter: str | None = None

    def matches(self, tensor: str) -> bool:
        """Whether it is about this tensor."""
        return self.filter is None or self.filter == "*" or self.filter in tensor


# Always a list of conditions: a plain value is one without a filter.
Setting = tuple[Conditional, ...]


def _setting(value: Any) -> Setting:
    """Read a scalar, a gradient, a condition or a list of conditions."""
    if isinstance(value, tuple):  # read before
        return value
    conditions = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    items = value if conditions else [value]
    if not all(isinstance(item, dict) for item in items) and len(items) > 1:
        raise ValueError("values and conditions are mixed in one list")
    return tuple(_condition(item) for item in items)


def _condition(item: Any) -> Conditional:
    if not isinstance(item, dict):
        return Conditional(_gradient(item))
    unknown = sorted(str(key) for key in item.keys() - {"filter", "value"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in a condition; it has filter and value")
    if "value" not in item:
        raise ValueError("a condition has no value")
    name = item.get("filter")
    if not isinstance(name, str | None):
        raise ValueError(f"a filter is part of a tensor's name, not {name!r}")  # noqa: TRY004
    return Conditional(_gradient(item["value"]), name)


def _gradient(value: Any) -> Gradient:
    if isinstance(value, list):
        if not value:
            raise ValueError("a gradient of no values was given")
        return tuple(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, str) and _SCIENTIFIC.match(value):
        return float(value)  # YAML reads 1e-5 as text, for want of a dot
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a value, a list of values or of {{filter, value}} was wanted, not {value!r}")


def _plain(setting: Setting) -> Any:
    """A setting as it is written in YAML."""
    values = [list(c.value) if isinstance(c.value, tuple) else c.value for c in setting]
    if len(setting) == 1 and setting[0].filter is None:
        return values[0]
    return [
        {"value": value} if c.filter is None else {"filter": c.filter, "value": value}
        for c, value in zip(setting, values, strict=True)
    ]


Settings = Annotated[
    dict[str, Annotated[Any, PlainValidator(_setting), PlainSerializer(_plain)]],
    BeforeValidator(lambda value: {} if value is None else value),
]
