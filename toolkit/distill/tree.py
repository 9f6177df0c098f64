"""Teachers as one module: models on any device, combined by the definitions of ``toolkit.runtime``.

The tree is that of the recipe. What an ensemble says is computed by the very functions that the
proof of an exported graph is computed by, so what teaches is what ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.distill.observing import Observed
from toolkit.distill.remembering import Memory, memory_of
from toolkit.distill.whole import SourceToLogits
from toolkit.errors import RecipeError
from toolkit.runtime import (
    GateRule,
    Runner,
    Translation,
    interpolate,
    interpolate_gated,
    log_weights,
)
from toolkit.sources.heads import Head, TokenLogits

__all__ = [
    "EnsembleNode",
    "GateNode",
    "LeafNode",
    "RunnerModule",
    "Said",
    "StackNode",
    "memory_in",
    "observe",
]


@dataclass(frozen=True)
class Said:
    """What a node says of a batch.

    Attributes:
        outputs: By name.
        inside: Tensors of models below, by path and name.
        members: The combined output of each member, of an ensemble.
        weights: Logarithms of theirs, [M] or by row [rows..., M].
    """

    outputs: Mapping[str, Tensor]
    inside: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[Tensor, ...] = ()
    weights: Tensor | None = None


class LeafNode(nn.Module):
    """One model under the names it shares with others.

    Attributes:
        path: Its place in the ensemble.
        observed: The model.
        inside: Names of what it gives from inside.
        memory: What it has read, while texts are continued.
        last: Then, how many positions at the end are asked for.
    """

    def __init__(  # noqa: PLR0913  (each is a different thing, and all are needed)
        self,
        path: str,
        module: nn.Module,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        rename: Mapping[str, str] | None = None,
        translation: Translation | None = None,
    ) -> None:
        """Take a loaded module over.

        Args:
            path: Its place in the ensemble, ``first/second``; empty for a model alone.
            module: Takes ``inputs`` by name and gives a tuple of ``outputs``.
            inputs: Its own names.
            outputs: Likewise.
            rename: From its own names of inputs to the shared ones.
            translation: Between its vocabulary and the student's.
        """
        super().__init__()
        self.path = path
        self.observed = Observed(module, outputs)
        self.inside: tuple[str, ...] = ()
        self.memory: Memory | None = None
        self.last: int | None = None
        self._inputs = tuple(inputs)
        self._rename = dict(rename or {})
        self._translation = translation
        if translation is not None:
            self.register_buffer("reads", torch.tensor(translation.reads), persistent=False)
            self.register_buffer("speaks", torch.tensor(translation.speaks), persistent=False)

    def watch(self, name: str) -> None:
        """Give a tensor from inside too, under its path and name."""
        self.observed.watch([name])
        self.inside = tuple(dict.fromkeys((*self.inside, name)))

    def forward(self, feeds: Mapping[str, Tensor]) -> Said:
        """Run the model once.

        Raises:
            RecipeError: If the batch lacks one of its inputs.
        """
        own = {name: _fed(feeds, self._rename.get(name, name), self.path) for name in self._inputs}
        said = self._translation
        if said is not None:
            own[said.ids] = self.get_buffer("reads")[own[said.ids]]
        found = self._found(own)
        if said is not None:
            found[said.logits] = self._spoken(found[said.logits])
        prefix = f"{self.path}/" if self.path else ""
        if self.memory is not None:
            return Said(found)
        inside = {prefix + name: found[name] for name in self.inside}
        return Said({name: found[name] for name in self.observed.outputs}, inside)

    def _found(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.memory is not None:
            return {"logits": self.memory(own)}
        found: dict[str, Tensor] = self.observed(own)
        if self.last is None:
            return found
        longest = max(value.shape[1] for value in own.values() if value.dim() > 1)
        return {
            name: value[:, -self.last :] if value.dim() > 2 and value.shape[1] == longest else value
            for name, value in found.items()
        }

    def _spoken(self, logits: Tensor) -> Tensor:
        speaks = self.get_buffer("speaks")
        spoken = logits.index_select(-1, speaks.clamp(min=0))
        return spoken.masked_fill(speaks < 0, -torch.inf)


@dataclass(frozen=True)
class GateNode:
    """What gives the weights of an ensemble.

    Attributes:
        node: Gives scores.
        rule: What becomes of them.
    """

    node: nn.Module
    rule: GateRule


class EnsembleNode(nn.Module):
    """Members whose output is interpolated; the formulas are those of ``toolkit.runtime``."""

    def __init__(  # noqa: PLR0913  (each is a different thing, and all are needed)
        self,
        members: Sequence[nn.Module],
        weights: Sequence[float],
        *,
        combine: Literal["linear", "log_linear"],
        space: Literal["logits", "probabilities", "values"],
        output: str,
        gate: GateNode | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        """Take nodes over; ``weights`` say nothing where a gate decides."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.gate = None if gate is None else gate.node
        self._rule = None if gate is None else gate.rule
        self._weights = tuple(weights)
        self._combine: Literal["linear", "log_linear"] = combine
        self._space: Literal["logits", "probabilities", "values"] = space
        self._output = output
        self._rename = dict(rename or {})

    def forward(self, feeds: Mapping[str, Tensor]) -> Said:
        """Run every member on the same feeds and combine."""
        feeds = _renamed(feeds, self._rename)
        parts = [member(feeds) for member in self.members]
        outputs = tuple(part.outputs[self._output] for part in parts)
        inside = {name: value for part in parts for name, value in part.inside.items()}
        if self.gate is None or self._rule is None:
            combined = interpolate(outputs, self._weights, self._combine, self._space)
            logs = torch.tensor(self._weights, dtype=outputs[0].dtype, device=outputs[0].device)
            return Said({self._output: combined}, inside, outputs, logs.log())
        scores = self.gate(feeds).outputs[self._rule.output]
        logs = log_weights(scores, self._rule)
        combined = interpolate_gated(outputs, logs, self._combine, self._space)
        return Said({self._output: combined}, inside, outputs, logs)


class StackNode(nn.Module):
    """Stages in order; outputs of one are fed to later ones, the last gives the result."""

    def __init__(
        self,
        stages: Sequence[nn.Module],
        feeds: Mapping[str, tuple[int, str]],
        rename: Mapping[str, str] | None = None,
    ) -> None:
        """Take nodes over; ``feeds`` go from an input to the stage and its output."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self._feeds = dict(feeds)
        self._rename = dict(rename or {})

    def forward(self, feeds: Mapping[str, Tensor]) -> Said:
        """Run the stages once."""
        known = dict(_renamed(feeds, self._rename))
        inside: dict[str, Tensor] = {}
        said = Said({})
        for place, stage in enumerate(self.stages):
            said = stage(known)
            inside.update(said.inside)
            for name, (source, output) in self._feeds.items():
                if source == place:
                    known[name] = said.outputs[output]
        return Said(said.outputs, inside)


class RunnerModule(nn.Module):
    """A runner, such as an ONNX file's, as a module without weights; it is entered for good."""

    def __init__(self, runner: Runner, outputs: Sequence[str]) -> None:
        super().__init__()
        self._runner = runner.__enter__()
        self._outputs = tuple(outputs)

    def forward(self, **feeds: Tensor) -> tuple[Tensor, ...]:
        """Run it on the host; the results are where the feeds were."""
        device = next(iter(feeds.values())).device
        found = self._runner({name: value.cpu().numpy() for name, value in feeds.items()})
        return tuple(torch.from_numpy(found[name]).to(device) for name in self._outputs)


def observe(tree: nn.Module, names: Sequence[str]) -> None:
    """Have the models of a tree give tensors from inside, by path and name.

    Raises:
        RecipeError: If no model has such a path, or nothing of such a name.
    """
    leaves = {node.path: node for node in tree.modules() if isinstance(node, LeafNode)}
    for name in names:
        path = max(
            (one for one in leaves if not one or name.startswith(one + "/")), key=len, default=None
        )
        if path is None:
            raise RecipeError(
                f"{name!r} names none of the teachers",
                hint="begin with " + ", ".join(f"{one}/" for one in leaves),
            )
        leaves[path].watch(name[len(path) + 1 :] if path else name)


def memory_in(leaf: LeafNode) -> Memory | None:
    """A memory for a leaf that is a causal or an encoder-decoder model of transformers."""
    module = leaf.observed.module
    speaks = isinstance(module, SourceToLogits) or (
        isinstance(module, TokenLogits) and bool(module.arguments)
    )
    return memory_of(module.model) if speaks and isinstance(module, Head) else None


def _fed(feeds: Mapping[str, Tensor], name: str, path: str) -> Tensor:
    if name not in feeds:
        whose = f"the teacher {path!r} takes" if path else "the teacher takes"
        raise RecipeError(
            f"the data has no {name!r}, which {whose}", hint="it has " + ", ".join(sorted(feeds))
        )
    return feeds[name]


def _renamed(feeds: Mapping[str, Tensor], rename: Mapping[str, str]) -> Mapping[str, Tensor]:
    """The feeds with shared names under a node's own too."""
    if not rename:
        return feeds
    return {**feeds, **{own: feeds[name] for own, name in rename.items() if name in feeds}}
