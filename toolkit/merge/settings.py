"""Parameters of one tensor: gradients over layers, filters on names, and which place wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import MergeError
from toolkit.merge.conditions import Conditional, Setting
from toolkit.merge.config import MergeConfig, Slice
from toolkit.merge.methods.parameters import Parameter
from toolkit.merge.methods.table import MethodEntry

__all__ = ["Place", "check_names", "evaluate", "lookup", "unused"]

Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Place:
    """Where a tensor stands, which decides the values of its parameters.

    Attributes:
        tensor: The name that filters look at.
        depth: From 0 at the first layer of a slice to 1 at the last; 0 outside of layers.
    """

    tensor: str
    depth: float


def evaluate(setting: Setting, place: Place) -> Any:
    """The value of a setting at a place, or None where no condition matches.

    The first condition whose filter is part of the tensor's name decides. A list of n numbers is
    read at ``depth * (n - 1)``, linearly between its entries; of other values the entry before it
    is taken. mergekit's rules.
    """
    for condition in setting:
        if condition.matches(place.tensor):
            return _at(condition, place.depth)
    return None


def _at(condition: Conditional, depth: float) -> Any:
    value = condition.value
    if not isinstance(value, tuple):
        return value
    position = depth * (len(value) - 1)
    index = int(position)
    if not all(isinstance(entry, int | float) for entry in value) or isinstance(value[0], bool):
        return value[index]
    low, high = value[index], value[min(index + 1, len(value) - 1)]
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    share = position - index
    return low if share == 0 else (1 - share) * low + share * high


def lookup(
    parameter: Parameter, places: Sequence[tuple[str, Settings]], place: Place, model: str = ""
) -> Any:
    """The first value among several places, checked, or the default.

    Args:
        parameter: Which.
        places: Settings with the name of where they stand, the most specific first.
        place: The tensor.
        model: Whose parameter it is, for the message.

    Raises:
        MergeError: If it is required and missing, or of a wrong kind or range.
    """
    for where, settings in places:
        if parameter.name in settings:
            value = evaluate(settings[parameter.name], place)
            if value is not None:
                return parameter.check(value, where)
    if parameter.required:
        owner = f" of model {model!r}" if model else ""
        raise MergeError(
            f"parameter {parameter.name!r}{owner} has no value for tensor {place.tensor!r}",
            hint=f"give {parameter.name} under parameters, or a condition without a filter",
        )
    return parameter.default


def _settings_of(config: MergeConfig) -> Iterable[tuple[str, Settings, bool]]:
    """All settings of a document: where, what, and whether they belong to one model."""
    yield "parameters", config.parameters, False
    for n, source in enumerate(config.models or ()):
        yield f"models[{n}].parameters", source.parameters, True
    for n, part in enumerate(config.slices or ()):
        yield from _slice_settings(n, part)


def _slice_settings(number: int, part: Slice) -> Iterable[tuple[str, Settings, bool]]:
    yield f"slices[{number}].parameters", part.parameters, False
    for n, source in enumerate(part.sources):
        yield f"slices[{number}].sources[{n}].parameters", source.parameters, True


def check_names(config: MergeConfig, entry: MethodEntry) -> None:
    """Refuse parameters that the method does not have, all at once.

    Raises:
        MergeError: Naming each and where it stands.
    """
    own = {parameter.name for parameter in entry.per_model}
    found = []
    for where, settings, of_model in _settings_of(config):
        for name in settings:
            if name not in entry.parameters:
                found.append(f"{where}: {entry.name} has no parameter {name!r}")
            elif of_model and name not in own:
                found.append(f"{where}: {name!r} belongs to the whole merge, not to one model")
    if found:
        known = ", ".join(entry.parameters) or "none"
        raise MergeError("; ".join(found), hint=f"parameters of {entry.name}: {known}")


def unused(config: MergeConfig, entry: MethodEntry) -> list[str]:
    """Warnings about parameters that are accepted and change nothing."""
    return [
        f"{where}: {name} changes nothing in {entry.name}"
        for where, settings, _ in _settings_of(config)
        for name in settings
        if entry.parameters[name].unused and name != "int8_mask"
    ]
