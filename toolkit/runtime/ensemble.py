"""The meaning of an ensemble, computed in PyTorch from its members' outputs.

This is the reference that fused graphs are proven against, so it shares no code with them: it
follows the definitions, in the members' own precision (float64 for a reference).

    linear,     logits          log sum_m w_m softmax(z_m)
    linear,     probabilities   sum_m w_m p_m
    linear,     values          sum_m w_m x_m
    log_linear, logits          log softmax(sum_m w_m z_m)
    log_linear, probabilities   prod_m p_m^w_m / sum over the last axis of the same

Linear is a mixture (Jordan & Jacobs 1994), log-linear a normalised product of experts
(Hinton 2002). A member with weight 0 takes no part, whatever it says; where every member with a
weight vetoes every class, no distribution exists and all probabilities are 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from toolkit.artifacts import TensorSpec
from toolkit.caches import PRESENT
from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.choices import choices_in
from toolkit.runtime.gate import (
    GateRule,
    interpolate_gated,
    log_softmax_or_nothing,
    log_weights,
    near_ties,
)
from toolkit.runtime.wrapping import Gathered

__all__ = [
    "EnsembleRunner",
    "Gating",
    "Weighted",
    "interpolate",
    "picked",
    "undecided",
]

Combine = Literal["linear", "log_linear"]
Space = Literal["logits", "probabilities", "values"]


@dataclass(frozen=True)
class Weighted:
    """A member and its weight, which says nothing where a gate decides."""

    runner: Runner
    weight: float


@dataclass(frozen=True)
class Gating:
    """A gate in place of constant weights.

    Attributes:
        runner: Gives scores [rows..., M], the rows being leading dimensions of the outputs.
        rule: What becomes of them.
        probes: The gate with the errors of float32: what they do to the scores decides which
            rows hang on rounding. Without any, no row is called undecided.
    """

    runner: Runner
    rule: GateRule
    probes: tuple[Runner, ...] = ()


def undecided(output: str) -> str:
    """The name under which an ensemble says which rows of ``output`` hang on rounding.

    The array is bool and broadcasts against the output. Which of two members with nearly equal
    scores is among the top k, float32 may decide otherwise than float64, and both are right.
    """
    return f"undecided rows of {output}"


class EnsembleRunner(Gathered):
    """Runs every member on the same feeds and interpolates one output.

    Members are any runners, ensembles included, so nesting costs nothing here.
    """

    def __init__(
        self,
        members: Sequence[Weighted],
        combine: Combine,
        space: Space,
        output: str,
        gate: Gating | None = None,
    ) -> None:
        self.members = tuple(members)
        self.output = output
        self.gate = gate
        self._combine: Combine = combine
        self._space: Space = space
        self.name = self.members[0].runner.name
        super().__init__([runner for runner, _ in self.parts])

    @property
    def parts(self) -> tuple[tuple[Runner, str], ...]:
        """What runs, and the output that is taken: members, the gate, its probes."""
        members = tuple((member.runner, self.output) for member in self.members)
        if self.gate is None:
            return members
        gates = (self.gate.runner, *self.gate.probes)
        return (*members, *((runner, self.gate.rule.output) for runner in gates))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of the inputs of members and gate."""
        specs = (spec for runner, _ in self.parts for spec in runner.inputs)
        return tuple({spec.name: spec for spec in specs}.values())

    def __call__(self, feeds: Feeds) -> Outputs:
        """Feed every member and combine their ``output``, and pass on the caches of each."""
        return self.combine([picked(runner(feeds), output) for runner, output in self.parts])

    def combine(self, parts: Sequence[Outputs]) -> Outputs:
        """Interpolate what ``parts`` gave, in their order; each as ``picked`` leaves it."""
        count, wanted = len(self.members), self.parts
        arrays = [part[name] for part, (_, name) in zip(parts, wanted, strict=True)]
        outputs = [_tensor(array) for array in arrays[:count]]
        doubts = [part[mark] for part in parts[:count] if (mark := undecided(self.output)) in part]
        if self.gate is None:
            weights = [member.weight for member in self.members]
            found = interpolate(outputs, weights, self._combine, self._space)
        else:
            scores, *probes = map(_tensor, arrays[count:])
            weights_of_rows = log_weights(scores, self.gate.rule)
            found = interpolate_gated(outputs, weights_of_rows, self._combine, self._space)
            ties = near_ties(scores, probes, self.gate.rule.top_k) if probes else None
            if ties is not None:
                shape = (*ties.shape, *[1] * (found.dim() - ties.dim()))
                doubts.append(ties.reshape(shape).numpy())
        result: Outputs = {self.output: found.numpy(), **_beside(parts)}
        if doubts:
            result[undecided(self.output)] = functools.reduce(np.logical_or, doubts)
        return result


def picked(found: Outputs, output: str) -> Outputs:
    """An output, what goes on beside it, and which of its rows hang on rounding if that is said."""
    mark = undecided(output)
    marked = {mark: found[mark]} if mark in found else {}
    return {output: found[output], **marked, **_beside([found])}


def _tensor(array: Array) -> torch.Tensor:
    # torch warns about arrays it may not write to, such as memory-mapped ones
    return torch.from_numpy(np.require(array, requirements="W"))


def _beside(found: Iterable[Outputs]) -> Outputs:
    """What belongs to one member alone and goes on beside the combined output: caches, choices."""
    kept: Outputs = {}
    for one in found:
        kept.update({name: array for name, array in one.items() if name.startswith(PRESENT)})
        kept.update(choices_in(one))
    return kept


def interpolate(
    outputs: Sequence[torch.Tensor], weights: Sequence[float], combine: Combine, space: Space
) -> torch.Tensor:
    """Combine members' outputs [..., V]; the result has their shape, space and dtype."""
    kept = [(w, x) for w, x in zip(weights, outputs, strict=True) if w > 0]
    if space == "values" or (combine == "linear" and space == "probabilities"):
        return torch.stack([w * x for w, x in kept]).sum(dim=0)
    if combine == "linear":
        logs = [log_softmax_or_nothing(x) + math.log(w) for w, x in kept]
        return torch.stack(logs).logsumexp(dim=0)
    spoken = [(w, x.log() if space == "probabilities" else x) for w, x in kept]
    product = torch.stack([w * x for w, x in spoken]).sum(dim=0)
    normalised = log_softmax_or_nothing(product)
    return normalised.exp() if space == "probabilities" else normalised
