"""The values inside a tree of traced models, under the names they have in the fused graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from toolkit.runtime.base import Array, Feeds, Outputs
from toolkit.runtime.ensemble import Combine, Space, interpolate
from toolkit.runtime.gate import GateRule, interpolate_gated, log_weights
from toolkit.runtime.program import ProgramTrace
from toolkit.runtime.translated import Translation

__all__ = [
    "Traced",
    "TracedEnsemble",
    "TracedGate",
    "TracedGroup",
    "TracedLeaf",
    "TracedStack",
    "TreeTrace",
]


@dataclass(frozen=True)
class TracedLeaf:
    """A model: its trace, or None where it did not come from PyTorch.

    Attributes:
        name: Its name among its siblings.
        trace: Its values under their own names.
        inputs: Its input names.
        rename: Of those, to the names one level up.
        caches: Outputs of its own to the names they have as outputs of the fused graph.
        translation: From the ensemble's vocabulary to its own, if they differ.
    """

    name: str
    trace: ProgramTrace | None
    inputs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    caches: Mapping[str, str] = field(default_factory=dict)
    translation: Translation | None = None

    def combined(self, output: str) -> str:
        """What the graph calls the value that is combined when ``output`` is."""
        named = self.translation is not None and output == self.translation.logits
        return f"vocabulary/{output}" if named else output

    @property
    def whole(self) -> bool:
        """Whether there is a trace."""
        return self.trace is not None


@dataclass(frozen=True)
class TracedGate:
    """A gate; fields as in ``Gating``."""

    model: Traced
    rule: GateRule


@dataclass(frozen=True)
class TracedEnsemble:
    """Members whose ``output`` is interpolated; fields as in ``EnsembleRunner``."""

    name: str
    members: tuple[Traced, ...]
    weights: tuple[float, ...]
    combine: Combine
    space: Space
    output: str
    inputs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    gate: TracedGate | None = None

    @property
    def parts(self) -> tuple[tuple[Traced, str], ...]:
        """The models below and the output that is taken of each: members and, last, the gate."""
        members = tuple((member, self.output) for member in self.members)
        if self.gate is None:
            return members
        return (*members, (self.gate.model, self.gate.rule.output))

    def combined(self, output: str) -> str:
        """What the graph calls the value that is combined when ``output`` is."""
        return output

    @property
    def whole(self) -> bool:
        """Whether every model below is traced, so that its output can be computed."""
        return all(part.whole for part, _ in self.parts)


@dataclass(frozen=True)
class TracedGroup:
    """Members of which nothing is combined; fields as in ``TracedEnsemble``."""

    name: str
    members: tuple[Traced, ...]
    inputs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)

    def combined(self, output: str) -> str:
        """No output is combined, so what a name means above is what it means here."""
        return output

    @property
    def whole(self) -> bool:
        """Whether every model below is traced."""
        return all(member.whole for member in self.members)


@dataclass(frozen=True)
class TracedStack:
    """Stages in order; the last gives ``outputs``.

    Attributes:
        name: Its name among its siblings.
        stages: The stages.
        feeds: From an input of later stages to the name of an earlier stage and its output.
        inputs: Its input names, feeds left out.
        outputs: Those of the last stage.
        rename: Of the inputs, to the names one level up.
    """

    name: str
    stages: tuple[Traced, ...]
    feeds: Mapping[str, tuple[str, str]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every stage is traced, so that the outputs can be computed."""
        return all(stage.whole for stage in self.stages)

    def combined(self, output: str) -> str:
        """What the graph calls the value that is combined when ``output`` is."""
        return output

    def fed(self, stage: Traced) -> dict[str, tuple[str, str]]:
        """The feeds that a stage takes."""
        taken = {stage.rename.get(name, name) for name in stage.inputs}
        return {feed: source for feed, source in self.feeds.items() if feed in taken}

    @property
    def runnable(self) -> tuple[Traced, ...]:
        """The stages whose every feed comes from a stage that is traced throughout."""
        given: set[str] = set()
        found: list[Traced] = []
        for stage in self.stages:
            if all(source in given for source, _ in self.fed(stage).values()):
                found.append(stage)
                given.update({stage.name} if stage.whole else ())
        return tuple(found)


Traced: TypeAlias = TracedLeaf | TracedEnsemble | TracedGroup | TracedStack


class TreeTrace:
    """Values of every member, prefixed by its path, and every output of ensembles and stacks.

    Attributes:
        names: The values it can show.
        failures: Members whose program could not run, with the reason; their values are missing.
    """

    def __init__(self, root: Traced) -> None:
        self._root = root
        names = frozenset(_names(root, ""))
        caches = ((name, inside) for name, inside in _caches(root, "") if inside in names)
        self._caches = dict(caches)  # by their names in the graph
        self.names: Collection[str] = names | self._caches.keys()
        self.failures: dict[str, str] = {}

    def __call__(self, feeds: Feeds, wanted: Collection[str]) -> Outputs:
        """Run what is needed for ``wanted``, each member at most once."""
        inside = {name: self._caches.get(name, name) for name in wanted}
        found = self._run(self._root, "", feeds, frozenset(inside.values()))
        return {name: found[own] for name, own in inside.items() if own in found}

    def _run(self, node: Traced, prefix: str, feeds: Feeds, wanted: Collection[str]) -> Outputs:
        own = {name: feeds[node.rename.get(name, name)] for name in node.inputs}
        if isinstance(node, TracedLeaf):
            return self._run_leaf(node, prefix, own, wanted)
        if isinstance(node, TracedStack):
            return self._run_stack(node, prefix, own, wanted)
        if isinstance(node, TracedGroup):
            runs = [self._run(m, f"{prefix}{m.name}/", own, wanted) for m in node.members]
            return {name: array for run in runs for name, array in run.items()}
        combined = prefix + node.output
        inner = set(wanted)
        outputs = [f"{prefix}{part.name}/{part.combined(output)}" for part, output in node.parts]
        if combined in wanted and node.whole:
            inner.update(outputs)
        found: Outputs = {}
        for part, _ in node.parts:
            found.update(self._run(part, f"{prefix}{part.name}/", own, inner))
        if combined in wanted and all(name in found for name in outputs):
            found[combined] = _combined(node, [found[name] for name in outputs])
        return found

    def _run_stack(
        self, stack: TracedStack, prefix: str, feeds: Feeds, wanted: Collection[str]
    ) -> Outputs:
        last, needed = f"{prefix}{stack.stages[-1].name}/", set(wanted)
        own = {prefix + name: last + name for name in stack.outputs if prefix + name in wanted}
        needed.update(own.values())
        for stage in reversed(stack.runnable):
            path = f"{prefix}{stage.name}/"
            if any(name.startswith(path) for name in needed):
                sources = stack.fed(stage).values()
                needed.update(f"{prefix}{source}/{output}" for source, output in sources)
        found: Outputs = {}
        given = dict(feeds)
        for stage in stack.runnable:
            if not stack.fed(stage).keys() <= given.keys():
                continue  # an earlier stage failed
            found.update(self._run(stage, f"{prefix}{stage.name}/", given, needed))
            for feed, (source, output) in stack.feeds.items():
                name = f"{prefix}{source}/{output}"
                if source == stage.name and name in found:
                    given[feed] = found[name]
        found.update({name: found[inner] for name, inner in own.items() if inner in found})
        return found

    def _run_leaf(
        self, leaf: TracedLeaf, prefix: str, feeds: Feeds, wanted: Collection[str]
    ) -> Outputs:
        trace, name = leaf.trace, prefix.rstrip("/") or leaf.name
        if trace is None or name in self.failures:
            return {}
        mine = [value for value in trace.names if prefix + value in wanted]
        said = leaf.translation
        spoken = said is not None and prefix + leaf.combined(said.logits) in wanted
        if not mine and not spoken:
            return {}
        try:
            if said is None:
                found = trace(feeds, mine)
            else:
                found = trace(said.read(feeds), {*mine, said.logits})
                found[leaf.combined(said.logits)] = said.speak(found[said.logits])
        # An operator that PyTorch has in float32 only, or an assertion about dtypes that the
        # program carries: whatever it is, the caller has other ways, and says that it used them.
        except Exception as error:  # noqa: BLE001
            lines = str(error).strip().splitlines()
            self.failures[name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            return {}
        return {prefix + value: array for value, array in found.items()}


def _combined(node: TracedEnsemble, outputs: Sequence[Array]) -> Array:
    tensors = [torch.from_numpy(array) for array in outputs]
    if node.gate is not None:
        weights = log_weights(tensors.pop(), node.gate.rule)
        return interpolate_gated(tensors, weights, node.combine, node.space).numpy()
    return interpolate(tensors, node.weights, node.combine, node.space).numpy()


def _names(node: Traced, prefix: str) -> Iterator[str]:
    if isinstance(node, TracedLeaf):
        yield from (prefix + name for name in (node.trace.names if node.trace else ()))
        if node.trace and node.translation:
            yield prefix + node.combined(node.translation.logits)
        return
    if isinstance(node, TracedStack):
        if node.whole:
            yield from (prefix + name for name in node.outputs)
        for stage in node.runnable:
            yield from _names(stage, f"{prefix}{stage.name}/")
        return
    if isinstance(node, TracedGroup):
        for member in node.members:
            yield from _names(member, f"{prefix}{member.name}/")
        return
    if node.whole:
        yield prefix + node.output
    for part, _ in node.parts:
        yield from _names(part, f"{prefix}{part.name}/")


def _caches(node: Traced, prefix: str) -> Iterator[tuple[str, str]]:
    """Names of caches in the fused graph, and what the traces call them."""
    if isinstance(node, TracedLeaf):
        yield from ((name, prefix + own) for own, name in node.caches.items())
        return
    for part in _below(node):
        yield from _caches(part, f"{prefix}{part.name}/")


def _below(node: TracedEnsemble | TracedGroup | TracedStack) -> tuple[Traced, ...]:
    if isinstance(node, TracedStack):
        return node.stages
    return node.members if isinstance(node, TracedGroup) else tuple(part for part, _ in node.parts)
