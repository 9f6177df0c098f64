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

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np
import torch

from toolkit.artifacts import TensorSpec
from toolkit.runtime.base import Array, Feeds, Outputs, Runner

__all__ = ["EnsembleRunner", "Weighted", "interpolate"]

Combine = Literal["linear", "log_linear"]
Space = Literal["logits", "probabilities", "values"]


@dataclass(frozen=True)
class Weighted:
    """A member and its weight."""

    runner: Runner
    weight: float


class EnsembleRunner:
    """Runs every member on the same feeds and interpolates one output.

    Members are any runners, ensembles included, so nesting costs nothing here.
    """

    def __init__(
        self, members: Sequence[Weighted], combine: Combine, space: Space, output: str
    ) -> None:
        self.members = tuple(members)
        self.output = output
        self._combine: Combine = combine
        self._space: Space = space
        self._stack = ExitStack()
        self.name = self.members[0].runner.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of the members' inputs."""
        specs = (spec for member in self.members for spec in member.runner.inputs)
        return tuple({spec.name: spec for spec in specs}.values())

    def __enter__(self) -> EnsembleRunner:
        """Load every member."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.runner)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free every member."""
        self._stack.close()

    def __call__(self, feeds: Feeds) -> Outputs:
        """Feed every member and combine their ``output``."""
        return self.combine([m.runner(feeds)[self.output] for m in self.members])

    def combine(self, parts: Sequence[Array]) -> Outputs:
        """Interpolate the members' outputs, given in their order."""
        # torch warns about arrays it may not write to, such as memory-mapped ones
        outputs = [torch.from_numpy(np.require(part, requirements="W")) for part in parts]
        weights = [member.weight for member in self.members]
        return {self.output: interpolate(outputs, weights, self._combine, self._space).numpy()}


def interpolate(
    outputs: Sequence[torch.Tensor], weights: Sequence[float], combine: Combine, space: Space
) -> torch.Tensor:
    """Combine members' outputs [..., V]; the result has their shape, space and dtype."""
    kept = [(w, x) for w, x in zip(weights, outputs, strict=True) if w > 0]
    if space == "values" or (combine == "linear" and space == "probabilities"):
        return torch.stack([w * x for w, x in kept]).sum(dim=0)
    if combine == "linear":
        return torch.stack([torch.log_softmax(x, -1) + math.log(w) for w, x in kept]).logsumexp(
            dim=0
        )
    logs = [(w, x.log() if space == "probabilities" else x) for w, x in kept]
    product = torch.stack([w * x for w, x in logs]).sum(dim=0)
    vetoed = product.isneginf().all(dim=-1, keepdim=True)
    normalised = torch.log_softmax(product.masked_fill(vetoed, 0.0), -1)
    normalised = normalised.masked_fill(vetoed, -torch.inf)
    return normalised.exp() if space == "probabilities" else normalised
