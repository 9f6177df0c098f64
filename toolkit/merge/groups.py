"""Which models one output tensor is merged from, in operand order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from toolkit.errors import MergeError
from toolkit.merge.conditions import Setting
from toolkit.merge.config import MergeConfig, Slice
from toolkit.merge.methods.table import MethodEntry

__all__ = ["Group", "Member", "short_names", "slice_groups", "whole_group"]

Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Member:
    """A model in one place of a config.

    Attributes:
        reference: The model.
        settings: Its own parameters.
        where: The place, for messages.
        first: Its layer that stands for layer 0 of the slice.
    """

    reference: str
    settings: Settings
    where: str
    first: int = 0


@dataclass(frozen=True)
class Group:
    """What output tensors are merged from: a slice, or all of a config with ``models``.

    Attributes:
        members: In operand order, the base first where there is one.
        origin: Whether the first member is a base and the others are differences from it.
        shared: Parameters that are not of one model, the most specific first.
        layers: Layers of the slice; None for whole models.
    """

    members: tuple[Member, ...]
    origin: bool
    shared: tuple[tuple[str, Settings], ...]
    layers: int | None = None


def whole_group(config: MergeConfig, entry: MethodEntry) -> Group:
    """The group of a config with ``models``."""
    members = tuple(
        Member(source.model, source.parameters, f"models[{n}].parameters")
        for n, source in enumerate(config.models or ())
    )
    ordered = _ordered(members, config.base_model, entry, sliced=False)
    return Group(ordered, _has_origin(entry, config.base_model), _shared(config))


def slice_groups(config: MergeConfig, entry: MethodEntry) -> list[Group]:
    """The groups of a config with ``slices``."""
    return [_slice_group(config, entry, n, part) for n, part in enumerate(config.slices or ())]


def short_names(references: Sequence[str]) -> tuple[str, ...]:
    """References without the folders they lie in, unless two would be the same then.

    Random draws are keyed by these, so that moving the models changes nothing.
    """
    short = ["+".join(PurePath(part).name for part in r.split("+")) for r in references]
    return tuple(short if len(set(short)) == len(short) else references)


def _slice_group(config: MergeConfig, entry: MethodEntry, number: int, part: Slice) -> Group:
    where = f"slices[{number}]"
    members = tuple(
        Member(s.model, s.parameters, f"{where}.sources[{n}].parameters", s.layer_range[0])
        for n, s in enumerate(part.sources)
    )
    base = part.base_model or config.base_model
    own = ((f"{where}.parameters", part.parameters),)
    first, stop = part.sources[0].layer_range
    ordered = _ordered(members, base, entry, sliced=True)
    return Group(ordered, _has_origin(entry, base), (*own, *_shared(config)), stop - first)


def _shared(config: MergeConfig) -> tuple[tuple[str, Settings], ...]:
    return (("parameters", config.parameters),)


def _has_origin(entry: MethodEntry, base: str | None) -> bool:
    return base is not None and entry.base in {"origin", "optional"}


def _ordered(
    members: tuple[Member, ...], base: str | None, entry: MethodEntry, *, sliced: bool
) -> tuple[Member, ...]:
    """Base first, where it is an operand of its own; then the models, if symmetric, by name.

    Raises:
        MergeError: If the method takes other models than there are.
    """
    references = [member.reference for member in members]
    if len(set(references)) < len(references):
        raise MergeError(f"a model is listed twice: {references}")
    if base is None and entry.base in {"origin", "first"}:
        raise MergeError(f"{entry.name} needs base_model, and none is given")
    if base is not None and entry.base != "none" and base not in references:
        if sliced:
            raise MergeError(
                f"base_model {base!r} is not among the sources of a slice, {references}",
                hint="list it as a source, so that its layer_range is known",
            )
        members = (*members, Member(base, {}, "base_model"))
    leads = base is not None and entry.base in {"origin", "first", "optional"}
    first = tuple(m for m in members if leads and m.reference == base)
    rest = [m for m in members if m not in first]
    _check_count(entry, len(rest) + len(first) * (entry.base == "first"), references)
    if entry.symmetric:
        rest.sort(key=lambda member: member.reference)
    return (*first, *rest)


def _check_count(entry: MethodEntry, count: int, references: Sequence[str]) -> None:
    least, most = entry.fewest, entry.most
    if least <= count <= most:
        return
    wanted = f"exactly {least}" if least == most else f"{least} or more"
    beside = ", the base not counted," if entry.base in {"origin", "optional"} else ""
    raise MergeError(
        f"{entry.name} merges {wanted} models{beside} and {count} were given: {references}"
    )
