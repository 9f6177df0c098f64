"""The parameters of merge methods: their types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.errors import MergeError

__all__ = ["Parameter", "Resolved"]


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: As it is written in a config.
        kind: What its value is; ``path`` is text.
        default: Taken where none is given.
        required: Whether one must be given.
        low: Smallest value, inclusive unless ``above``.
        high: Largest value, inclusive.
        above: Whether ``low`` itself is excluded.
        choices: The values of a ``choice``.
        unused: It is accepted because mergekit accepts it, and changes nothing here.
    """

    name: str
    kind: Literal["number", "whole", "flag", "choice", "path"] = "number"
    default: Any = None
    required: bool = False
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    unused: bool = False

    def check(self, value: Any, place: str) -> Any:
        """The value, converted.

        Raises:
            MergeError: If it is of another kind or out of range.
        """
        wanted = self._wanted()
        if not self._fits(value):
            raise MergeError(f"{place}: {self.name} is {value!r}, and {wanted} was wanted")
        return float(value) if self.kind == "number" else value

    def _fits(self, value: Any) -> bool:
        if self.kind == "flag":
            return isinstance(value, bool)
        if self.kind == "choice":
            return value in self.choices
        if self.kind == "path":
            return isinstance(value, str)
        numeric = isinstance(value, int if self.kind == "whole" else int | float)
        if not numeric or isinstance(value, bool):
            return False
        low_enough = self.high is None or value <= self.high
        if self.low is None:
            return low_enough
        high_enough = value > self.low if self.above else value >= self.low
        return bool(low_enough and high_enough)

    def _wanted(self) -> str:
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind in {"flag", "path"}:
            return {"flag": "true or false", "path": "a path"}[self.kind]
        noun = "a whole number" if self.kind == "whole" else "a number"
        bounds = []
        if self.low is not None:
            bounds.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:g}")
        return " ".join([noun, " and ".join(bounds)]).strip()


@dataclass(frozen=True)
class Resolved:
    """What a method is built from, for one tensor.

    Attributes:
        tensor: The output tensor's name.
        shared: Values of the merge's own parameters.
        models: Labels of the models, base excluded, in operand order.
        per_model: Values of each model's parameters, in the same order.
        based: Whether a base is the first operand.
        seed: Of random methods.
    """

    tensor: str
    shared: Mapping[str, Any]
    models: tuple[str, ...]
    per_model: tuple[Mapping[str, Any], ...]
    based: bool
    seed: int

    def column(self, name: str) -> tuple[Any, ...]:
        """One parameter of every model."""
        return tuple(values[name] for values in self.per_model)
