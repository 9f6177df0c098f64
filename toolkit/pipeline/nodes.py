"""The nodes of a plan's tree: models, ensembles, groups, stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from toolkit.artifacts import OnnxModel, TensorSpec
from toolkit.checkpoint import Checkpoint, open_checkpoint
from toolkit.pipeline.interface import join_inputs
from toolkit.pipeline.stacks import StackPlan
from toolkit.runtime import GateRule, Translation
from toolkit.sources import FactorySource, HuggingFaceSource, Source

__all__ = [
    "EnsemblePlan",
    "GatePlan",
    "GroupPlan",
    "LeafPlan",
    "Node",
    "each_leaf",
    "walk_leaves",
]


@dataclass(frozen=True)
class LeafPlan:
    """One model: a PyTorch source, or an ONNX file made elsewhere.

    A gate, or part of one, stays in float32 where members are in half precision: it decides
    between them, and takes a small part of the time.

    ``caches`` are outputs that a member of an ensemble keeps for itself: from its own names to
    those in the fused graph. Its ``rename`` names the inputs they continue in the same way.
    """

    name: str
    origin: Source | OnnxModel
    rename: Mapping[str, str] = field(default_factory=dict)
    gates: bool = False
    caches: Mapping[str, str] = field(default_factory=dict)
    translation: Translation | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Its inputs under its own names; token ids are those of the ensemble."""
        said = self.translation
        if said is None:
            return self.origin.inputs
        own = self.origin.inputs
        return tuple(replace(s, high=len(said.reads)) if s.name == said.ids else s for s in own)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Its outputs' names."""
        if isinstance(self.origin, OnnxModel):
            return tuple(spec.name for spec in self.origin.outputs)
        return self.origin.outputs

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is made from."""
        if not isinstance(self.origin, OnnxModel):
            return self.origin.files
        data = self.origin.path.with_name(self.origin.path.name + ".data")
        return (self.origin.path, data) if data.is_file() else (self.origin.path,)

    def checkpoint(self) -> Checkpoint | None:
        """Its weights, where they are a checkpoint."""
        if isinstance(self.origin, HuggingFaceSource):
            return open_checkpoint(self.origin.folder)
        if isinstance(self.origin, FactorySource):
            return open_checkpoint(self.origin.weights)
        return None


@dataclass(frozen=True)
class GatePlan:
    """A model whose scores give the weights, and how; see ``GateRule``."""

    model: Node
    rule: GateRule


@dataclass(frozen=True)
class EnsemblePlan:
    """Members whose ``output`` is interpolated, with constant weights or by a gate."""

    name: str
    members: tuple[Node, ...]
    weights: tuple[float, ...]
    combine: Literal["linear", "log_linear"]
    space: Literal["logits", "probabilities", "values"]
    output: str
    rename: Mapping[str, str] = field(default_factory=dict)
    gate: GatePlan | None = None

    @property
    def parts(self) -> tuple[Node, ...]:
        """The models below it: members and, last, the gate."""
        return (*self.members, *(() if self.gate is None else (self.gate.model,)))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of its members' and its gate's inputs, under the ensemble's names."""
        return join_inputs((part.name, part.inputs, part.rename) for part in self.parts)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The interpolated output, then the caches of every member."""
        caches = (name for _, leaf in walk_leaves("", self) for name in leaf.caches.values())
        return (self.output, *caches)


@dataclass(frozen=True)
class GroupPlan:
    """Members side by side, of which nothing is combined: the encoders of an ensemble."""

    name: str
    members: tuple[Node, ...]
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Node, ...]:
        """The members."""
        return self.members

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of its members' inputs, under the group's names."""
        return join_inputs((part.name, part.inputs, part.rename) for part in self.members)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The caches of every member."""
        return tuple(name for _, leaf in walk_leaves("", self) for name in leaf.caches.values())


Node: TypeAlias = LeafPlan | EnsemblePlan | GroupPlan | StackPlan


def walk_leaves(prefix: str, node: Node) -> Iterator[tuple[str, LeafPlan]]:
    """Every model with its path, left to right."""
    if isinstance(node, LeafPlan):
        yield prefix + node.name, node
        return
    for member in node.parts:
        # the root's own name is no part of the graph's names
        inner = f"{prefix}{member.name}/" if not isinstance(member, LeafPlan) else prefix
        yield from walk_leaves(inner, member)


def each_leaf(
    path: tuple[str, ...],
    node: Node,
    change: Callable[[tuple[str, ...], LeafPlan], LeafPlan],
) -> Node:
    """The tree with every model changed; ``change`` is given its path, empty for the root."""
    if isinstance(node, LeafPlan):
        return change(path, node)
    if isinstance(node, StackPlan):
        stages = tuple(each_leaf((*path, s.name), s, change) for s in node.stages)
        return replace(node, stages=stages)
    below = tuple(each_leaf((*path, m.name), m, change) for m in node.members)
    if isinstance(node, GroupPlan):
        return replace(node, members=below)
    if node.gate is None:
        return replace(node, members=below)
    model = node.gate.model
    gate = replace(node.gate, model=each_leaf((*path, model.name), model, change))
    return replace(node, members=below, gate=gate)
