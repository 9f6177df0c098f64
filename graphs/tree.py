"""What to fuse: a tree of members and ensembles, checked as far as it can be without files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from graphs.errors import GraphError

__all__ = ["Combination", "Ensemble", "Leaf"]

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
# Value names in the fused graph that belong to the ensemble itself.
_RESERVED = "interpolation"


@dataclass(frozen=True)
class Combination:
    """How the members' outputs become one.

    Attributes:
        kind: ``linear`` mixes probabilities: log sum_m w_m softmax(z_m). ``log_linear`` mixes
            logits and normalises: log_softmax(sum_m w_m z_m).
        space: What the output holds: ``logits`` (unnormalised or log probabilities; the result is
            log probabilities), ``probabilities`` (the result is probabilities), both over the last
            axis, or ``values`` (a plain weighted mean; linear only).
        weights: One per member, in the members' order.
        output: The output that every member must have, and the name of the result.
    """

    kind: Literal["linear", "log_linear"]
    space: Literal["logits", "probabilities", "values"]
    weights: tuple[float, ...]
    output: str


@dataclass(frozen=True)
class Leaf:
    """One ONNX file.

    Attributes:
        name: Prefix of its nodes, values and initializers.
        path: The file; its external data lies beside it.
        rename: From the file's own input names to the names shared with the other members.
    """

    name: str
    path: Path
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ensemble:
    """Members whose common output is combined.

    Attributes:
        name: Prefix of everything inside, unless this is the root of the tree.
        members: At least one; names are unique among siblings.
        combination: How the outputs become one.
        rename: From the members' shared input names to the names one level up.

    Raises:
        GraphError: If names, weights or the kind of combination cannot be meant.
    """

    name: str
    members: tuple[Leaf | Ensemble, ...]
    combination: Combination
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members:
            raise GraphError(f"ensemble {self.name!r} has no members, wanted at least one")
        names = [member.name for member in self.members]
        for name in names:
            _check_name(self.name, name, names)
        _check_weights(self)
        if self.combination.kind == "log_linear" and self.combination.space == "values":
            raise GraphError(
                f"ensemble {self.name!r} combines values log-linearly, "
                "which is defined for distributions only",
                hint="use linear, or combine logits or probabilities",
            )
        _check_spaces(self)


def _check_name(ensemble: str, name: str, names: list[str]) -> None:
    if not _NAME.match(name) or name == _RESERVED:
        raise GraphError(
            f"ensemble {ensemble!r} has a member named {name!r}, which cannot prefix names",
            hint=f"use letters, digits, '_', '.' and '-', and not {_RESERVED!r}",
        )
    if names.count(name) > 1:
        raise GraphError(
            f"ensemble {ensemble!r} has {names.count(name)} members named {name!r}",
            hint="names of members must differ, they become prefixes in the graph",
        )


def _check_weights(ensemble: Ensemble) -> None:
    name, weights = ensemble.name, ensemble.combination.weights
    if len(weights) != len(ensemble.members):
        raise GraphError(
            f"ensemble {name!r} has {len(weights)} weights for {len(ensemble.members)} members"
        )
    for member, weight in zip(ensemble.members, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise GraphError(
                f"ensemble {name!r} gives member {member.name!r} the weight {weight}, "
                "wanted a finite number >= 0"
            )
    total = math.fsum(weights)
    if ensemble.combination.kind == "linear" and abs(total - 1) > 1e-6:
        normalised = ", ".join(f"{weight / total:.6g}" for weight in weights) if total else ""
        raise GraphError(
            f"ensemble {name!r} is linear and its weights sum to {total:.7g}, wanted 1",
            hint=f"normalised they are {normalised}" if total else "all weights are 0",
        )
    if total == 0:
        raise GraphError(f"ensemble {name!r} has only weights of 0")


def _check_spaces(ensemble: Ensemble) -> None:
    """An inner ensemble gives what it combines, so the spaces must be the same all the way up."""
    space = ensemble.combination.space
    for member in ensemble.members:
        if isinstance(member, Ensemble) and member.combination.space != space:
            raise GraphError(
                f"ensemble {ensemble.name!r} combines {space}, but its member {member.name!r} "
                f"gives {member.combination.space}"
            )
