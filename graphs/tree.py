"""What to fuse: members and what joins them, checked as far as it can be without files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from graphs.errors import GraphError

__all__ = [
    "Combination",
    "Ensemble",
    "Feed",
    "Gate",
    "Group",
    "Leaf",
    "Stack",
    "Translation",
    "Tree",
    "parts_of",
]

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
        weights: One per member, in the members' order; none where a gate decides.
        output: The output that every member must have, and the name of the result.
    """

    kind: Literal["linear", "log_linear"]
    space: Literal["logits", "probabilities", "values"]
    weights: tuple[float, ...]
    output: str


@dataclass(frozen=True)
class Translation:
    """From the token ids of the ensemble to a member's own.

    Attributes:
        ids: The member's input of ids.
        logits: Its output with a logit for each of its ids, along the last axis.
        reads: For each id of the ensemble, the member's id that is read in its place.
        speaks: For each id of the ensemble, the member's id whose logit it gets; -1 for -inf.
    """

    ids: str
    logits: str
    reads: tuple[int, ...] = field(repr=False)
    speaks: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True)
class Leaf:
    """One ONNX file.

    Attributes:
        name: Prefix of its nodes, values and initializers.
        path: The file; its external data lies beside it.
        rename: From the file's own input names to the names shared with the other members.
        keep: Of its own outputs, those that are outputs of the fused graph beside the combined
            one, and their names there; a tree that is one leaf keeps all of them as they are.
        translation: Tables between its vocabulary and that of the ensemble, if they differ.
    """

    name: str
    path: Path
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    translation: Translation | None = None


@dataclass(frozen=True)
class Gate:
    """A model that gives every row its own weights, in place of constant ones.

    Attributes:
        model: Its name is unique among the members' and prefixes its nodes.
        output: Its output with scores [rows..., M]: rows are leading dimensions of the combined
            output, M is the number of members.
        top_k: How many members of a row have a weight above 0, of equal scores the first; None
            for all.
        activation: ``softmax`` of the scores that are kept, or their ``softplus``, which is for
            log-linear ensembles only because those weights need not sum to 1.
    """

    model: Tree
    output: str
    top_k: int | None = None
    activation: Literal["softmax", "softplus"] = "softmax"


@dataclass(frozen=True)
class Ensemble:
    """Members whose common output is combined.

    Attributes:
        name: Prefix of everything inside, unless this is the root of the tree.
        members: At least one; names are unique among siblings.
        combination: How the outputs become one.
        rename: From the members' and the gate's shared input names to the names one level up.
        gate: What gives the weights, where they depend on the context.

    Raises:
        GraphError: If names, weights or the kind of combination cannot be meant.
    """

    name: str
    members: tuple[Tree, ...]
    combination: Combination
    rename: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise GraphError(f"ensemble {self.name!r} has no members, wanted at least one")
        names = [part.name for part in parts_of(self)]
        for name in names:
            _check_name(self.name, name, names)
        if self.gate is None:
            _check_weights(self)
        else:
            _check_gate(self, self.gate)
        if self.combination.kind == "log_linear" and self.combination.space == "values":
            raise GraphError(
                f"ensemble {self.name!r} combines values log-linearly, "
                "which is defined for distributions only",
                hint="use linear, or combine logits or probabilities",
            )
        _check_spaces(self)


@dataclass(frozen=True)
class Feed:
    """An output of one stage that later stages take as an input.

    Attributes:
        stage: The name of the stage.
        output: Which of its outputs.
    """

    stage: str
    output: str


@dataclass(frozen=True)
class Stack:
    """Stages in order, where outputs of one are inputs of later ones; the last gives the result.

    Attributes:
        name: Prefix of everything inside, unless this is the root of the tree.
        stages: Two or more; names are unique among siblings.
        feeds: From the name of an input of later stages to the output that it is.
        rename: From the stages' shared input names, feeds left out, to the names one level up.

    Raises:
        GraphError: If names cannot be meant, or a feed comes from no stage before the last.
    """

    name: str
    stages: tuple[Tree, ...]
    feeds: Mapping[str, Feed]
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.stages) < 2:
            raise GraphError(
                f"stack {self.name!r} has {len(self.stages)} stages, wanted two or more"
            )
        names = [stage.name for stage in self.stages]
        for name in names:
            _check_name(self.name, name, names, "stack")
        for feed, source in self.feeds.items():
            if source.stage not in names[:-1]:
                raise GraphError(
                    f"feed {feed!r} of stack {self.name!r} comes from {source.stage!r}, wanted a "
                    "stage before the last",
                    hint="these are " + ", ".join(names[:-1]),
                )


@dataclass(frozen=True)
class Group:
    """Models side by side: they share inputs, and nothing of them is combined.

    The outputs are what its leaves ``keep``.

    Attributes:
        name: Prefix of everything inside, unless this is the root of the tree.
        members: At least one; names are unique among siblings.
        rename: From the members' shared input names to the names one level up.

    Raises:
        GraphError: If there is no member, or names cannot be meant.
    """

    name: str
    members: tuple[Tree, ...]
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members:
            raise GraphError(f"group {self.name!r} has no members, wanted at least one")
        names = [member.name for member in self.members]
        for name in names:
            _check_name(self.name, name, names, "group")


Tree: TypeAlias = Leaf | Ensemble | Group | Stack


def parts_of(tree: Ensemble | Group | Stack) -> tuple[Tree, ...]:
    """The models below: stages, or members and, last, their gate."""
    if isinstance(tree, Stack):
        return tree.stages
    if isinstance(tree, Group):
        return tree.members
    gates = () if tree.gate is None else (tree.gate.model,)
    return (*tree.members, *gates)


def _check_gate(ensemble: Ensemble, gate: Gate) -> None:
    name, count = ensemble.name, len(ensemble.members)
    if ensemble.combination.weights:
        raise GraphError(f"ensemble {name!r} has both constant weights and a gate, wanted one")
    if gate.top_k is not None and not 1 <= gate.top_k <= count:
        raise GraphError(
            f"the gate of ensemble {name!r} keeps {gate.top_k} of {count} members, "
            f"wanted 1 to {count}"
        )
    if gate.activation == "softplus" and ensemble.combination.kind == "linear":
        raise GraphError(
            f"ensemble {name!r} is linear, and softplus gives weights that do not sum to 1",
            hint="use softmax, or combine log_linear",
        )


def _check_name(tree: str, name: str, names: list[str], kind: str = "ensemble") -> None:
    if not _NAME.match(name) or name == _RESERVED:
        raise GraphError(
            f"{kind} {tree!r} has a member named {name!r}, which cannot prefix names",
            hint=f"use letters, digits, '_', '.' and '-', and not {_RESERVED!r}",
        )
    if names.count(name) > 1:
        raise GraphError(
            f"{kind} {tree!r} has {names.count(name)} members named {name!r}",
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
