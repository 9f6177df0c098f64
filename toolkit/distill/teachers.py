"""A tree of models as a teacher, and the three targets that several models can be.

With p_m the distribution of teacher m, z_m its logits and w_m its weight:

    mixture         the ensemble's own distribution, as it is run and exported: for a linear one
                    sum_m w_m p_m, for a log-linear one softmax(sum_m w_m z_m), with a gate's
                    weights where it has one
    mean_of_logits  softmax(sum_m w_m z_m), whatever the ensemble is
    mean_of_kls     sum_m w_m D(p_m, q): no distribution, but a divergence from each

At T = 1 the mean of forward KLs has the gradient of the forward KL to the linear mixture, and that
of reverse KLs the gradient of the reverse KL to the log-linear one (the rest does not depend on the
student). At another T they differ: each p_m is tempered before it is averaged, a mixture after.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.distill.remembering import Growing, Remembering
from toolkit.distill.rows import flat, row_mask
from toolkit.distill.tree import LeafNode, Said, StackNode, memory_in, observe
from toolkit.distill.types import INDEX, LABELS, Batch, Needs, TargetKind, Targets, Task
from toolkit.errors import RecipeError

__all__ = ["LiveTeacher"]


class LiveTeacher:
    """Models in memory, run without gradients.

    Attributes:
        tree: Takes feeds by name and gives ``Said``; move it to the device that trains.
        task: Says what rows are.
    """

    def __init__(  # noqa: PLR0913  (each is a different thing, and all are needed)
        self,
        tree: nn.Module,
        task: Task,
        *,
        output: str = "logits",
        space: Literal["logits", "probabilities", "values"] = "logits",
        target: TargetKind = "mixture",
        needs: Needs | None = None,
    ) -> None:
        """Take a tree over.

        Args:
            tree: ``LeafNode``, ``EnsembleNode`` or ``StackNode``.
            task: Says what rows are.
            output: The output of the root that is learnt.
            space: What it holds; ``values`` are no distribution.
            target: What several models are one target as.
            needs: What the objective reads.

        Raises:
            RecipeError: If the objective reads what no model has.
        """
        self.tree = tree.eval().requires_grad_(requires_grad=False)
        self.task: Task = task
        self.target: TargetKind = target
        self._output = output
        self._space = space
        self._needs = needs or Needs(logits=space != "values")
        self._inside = tuple(name for name in self._needs.teacher if name != output)
        observe(tree, self._inside)

    @property
    def device(self) -> torch.device:
        """Where its models are."""
        first = next(itertools.chain(self.tree.parameters(), self.tree.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def targets(self, batch: Batch) -> Targets:
        """Run the models on a batch.

        Raises:
            RecipeError: If the batch lacks what a model takes, or rows are not the output's.
        """
        feeds = {name: value for name, value in batch.items() if name not in {LABELS, INDEX}}
        with torch.no_grad():
            said: Said = self.tree(feeds)
            hidden = {name: said.inside[name] for name in self._inside}
            if self._output in self._needs.teacher:
                hidden[self._output] = said.outputs[self._output]
            mask = row_mask(self.task, batch)
            if not self._needs.logits:
                return Targets(mask, hidden=hidden)
            return self._distribution(said, mask, hidden)

    def speak(self, feeds: Mapping[str, Tensor]) -> Tensor:
        """What comes next by the ensemble's own distribution: log probabilities [R, S, V]."""
        with torch.no_grad():
            said: Said = self.tree(feeds)
            return torch.log_softmax(self._logits(said.outputs[self._output]), -1)

    def remembering(self) -> Remembering:
        """``speak``, for texts that grow: models of transformers read only what is new.

        Stacks read whole texts, because a stage may need all that the one before it said.
        """
        if any(isinstance(node, StackNode) for node in self.tree.modules()):
            return Remembering(self.speak, ())
        leaves = [node for node in self.tree.modules() if isinstance(node, LeafNode)]
        memories = {leaf: memory for leaf in leaves if (memory := memory_in(leaf)) is not None}
        ids = "decoder_input_ids" if self.task == "seq2seq-lm" else "input_ids"
        growing = Growing()

        def speak(feeds: Mapping[str, Tensor]) -> Tensor:
            last = growing.new(feeds[ids])
            for leaf in leaves:
                leaf.memory, leaf.last = memories.get(leaf), last
            try:
                return self.speak(feeds)
            finally:
                for leaf in leaves:
                    leaf.memory = leaf.last = None

        return Remembering(speak, (growing, *memories.values()))

    def _distribution(self, said: Said, mask: Tensor, hidden: Mapping[str, Tensor]) -> Targets:
        if self._space == "values":
            raise RecipeError(
                f"the teachers' {self._output!r} holds plain values, and a distribution is asked",
                hint="space: logits or probabilities, or match the values themselves",
            )
        combined = said.outputs[self._output]
        if combined.numel() // combined.shape[-1] != mask.numel():
            raise RecipeError(
                f"the teachers' {self._output!r} has shape {list(combined.shape)}, and the batch "
                f"has {mask.numel()} rows"
            )
        members = said.members or (combined,)
        weights = combined.new_ones(1) if said.weights is None else said.weights.exp()
        if self.target == "mean_of_kls":
            logs = tuple(flat(self._logits(one)) for one in members)
            by_row = _by_row(weights, combined)
            return Targets(mask, per_teacher=logs, weights=by_row, hidden=hidden)
        logits = self._logits(combined)
        if self.target == "mean_of_logits":
            logits = self._mean([self._logits(one) for one in members], weights)
        return Targets(mask, log_probs=torch.log_softmax(flat(logits), -1), hidden=hidden)

    def _logits(self, values: Tensor) -> Tensor:
        wide = values if values.dtype == torch.float64 else values.float()
        return wide.log() if self._space == "probabilities" else wide

    @staticmethod
    def _mean(logits: list[Tensor], weights: Tensor) -> Tensor:
        spread = weights.to(logits[0])
        while spread.dim() > 1 and spread.dim() < logits[0].dim():
            spread = spread.unsqueeze(-2)
        parts = []
        for place, one in enumerate(logits):
            weight = spread[..., place : place + 1]
            # a teacher without weight has no say, a veto of its own neither
            parts.append((weight * one).masked_fill(weight == 0, 0.0))
        return torch.stack(parts).sum(0)


def _by_row(weights: Tensor, output: Tensor) -> Tensor:
    """[M] as it is; [rows..., M] as [N, M] for an output [rows..., ..., V]."""
    if weights.dim() == 1:
        return weights
    while weights.dim() < output.dim():
        weights = weights.unsqueeze(-2)
    return flat(weights.expand(*output.shape[:-1], weights.shape[-1]))
