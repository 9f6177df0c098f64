"""The values inside a tree of traced models, under the names they have in the fused graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from toolkit.runtime.base import Array, Feeds, Outputs
from toolkit.runtime.ensemble import Combine, Space, interpolate
from toolkit.runtime.gate import GateRule, interpolate_gated, log_weights
from toolkit.runtime.program import ProgramTrace
from toolkit.runtime.translated import Translation

__all__ = ["TracedEnsemble", "TracedGate", "TracedLeaf", "TreeTrace"]


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


@dataclass(frozen=True)
class TracedGate:
    """A gate; fields as in ``Gating``."""

    model: TracedLeaf | TracedEnsemble
    rule: GateRule


@dataclass(frozen=True)
class TracedEnsemble:
    """Members whose ``output`` is interpolated; fields as in ``EnsembleRunner``."""

    name: str
    members: tuple[TracedLeaf | TracedEnsemble, ...]
    weights: tuple[float, ...]
    combine: Combine
    space: Space
    output: str
    inputs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    gate: TracedGate | None = None

    @property
    def parts(self) -> tuple[tuple[TracedLeaf | TracedEnsemble, str], ...]:
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
        return all(
            part.whole if isinstance(part, TracedEnsemble) else part.trace is not None
            for part, _ in self.parts
        )


class TreeTrace:
    """Values of every member, prefixed by its path, and every combined output.

    Attributes:
        names: The values it can show.
        failures: Members whose program could not run, with the reason; their values are missing.
    """

    def __init__(self, root: TracedLeaf | TracedEnsemble) -> None:
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

    def _run(
        self, node: TracedLeaf | TracedEnsemble, prefix: str, feeds: Feeds, wanted: Collection[str]
    ) -> Outputs:
        own = {name: feeds[node.rename.get(name, name)] for name in node.inputs}
        if isinstance(node, TracedLeaf):
            return self._run_leaf(node, prefix, own, wanted)
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


def _names(node: TracedLeaf | TracedEnsemble, prefix: str) -> Iterator[str]:
    if isinstance(node, TracedLeaf):
        yield from (prefix + name for name in (node.trace.names if node.trace else ()))
        if node.trace and node.translation:
            yield prefix + node.combined(node.translation.logits)
        return
    if node.whole:
        yield prefix + node.output
    for part, _ in node.parts:
        yield from _names(part, f"{prefix}{part.name}/")


def _caches(node: TracedLeaf | TracedEnsemble, prefix: str) -> Iterator[tuple[str, str]]:
    """Names of caches in the fused graph, and what the traces call them."""
    if isinstance(node, TracedLeaf):
        yield from ((name, prefix + own) for own, name in node.caches.items())
        return
    for part, _ in node.parts:
        yield from _caches(part, f"{prefix}{part.name}/")
