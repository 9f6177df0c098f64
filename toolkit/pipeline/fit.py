"""``fit-gate``: a plan's members run over held-out data, and its weights are fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit.errors import RecipeError
from toolkit.fitting import (
    GateFit,
    Objective,
    OutputCache,
    Rows,
    TrainingOptions,
    fit_constants,
    fit_gate,
    gate_scores,
    gather,
    label_log_probabilities,
    score,
    whole,
)
from toolkit.pipeline.fit_data import Data, read_data
from toolkit.pipeline.fit_parts import FitOptions, described, output_key, write_weights
from toolkit.pipeline.fit_report import FitReport, FitRow
from toolkit.pipeline.fit_stack import fit_stack
from toolkit.pipeline.plan import EnsemblePlan, GatePlan, LeafPlan, Node, Plan, StackPlan, make_plan
from toolkit.pipeline.reference import part_runner
from toolkit.progress import Progress, silent
from toolkit.recipe import Recipe
from toolkit.runtime import GateRule, log_weights
from toolkit.sources import FactorySource

__all__ = ["fit_recipe"]


def fit_recipe(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    recipe: Recipe,
    folder: Path,
    data: Path,
    out: Path | None = None,
    options: FitOptions | None = None,
    progress: Progress = silent,
) -> FitReport:
    """Fit the weights of the recipe's outermost ensemble, or the last stage of its stack.

    What stands below stays as it is.

    Constants are fitted in any case, and a gate is held against them. Unless ``constant`` is asked
    for, the gate that the recipe names is trained from its factory and written as safetensors.

    Args:
        recipe: Its model is an ensemble of distributions, or a stack; the gate or the last stage
            is a factory.
        folder: What its paths are read against.
        data: Labelled arrays (``.npz``, ``.safetensors``) or text (``.txt``, ``.jsonl``).
        out: The file of what is trained; the one that the recipe names if None.
        options: How.
        progress: Told of every member's batches and of every pass of the training.

    Raises:
        RecipeError: If there is nothing to fit, or data and models do not fit together.
        MergeError: If the data cannot be read.
    """
    options = options or FitOptions()
    plan = make_plan(recipe, folder)
    if isinstance(plan.root, StackPlan):
        return fit_stack(plan, plan.root, data, out, options, progress)
    objective = _objective(plan.root)
    assert isinstance(plan.root, EnsemblePlan)
    gate = None if options.constant else _trainable(plan.root)
    examples = read_data(data, plan, options.share, options.batch, options.window)
    with OutputCache(options.cache) as cache:
        rows = _rows(plan, plan.root, examples, options, objective, cache, progress)
        fitting = _Fitting(plan.root, objective, rows[0], rows[1])
        constants, judged = fitting.constants()
        report = FitReport(judged, tuple(constants.tolist()), text=examples.text)
        if gate is None:
            return report
        training = replace(options.training, seed=recipe.seed)
        module, fit, more = fitting.gate(gate, constants, training, progress)
        target = out or gate.source.weights
        write_weights(module, target)
        return replace(report, rows=(*judged, *more), out=target, fit=fit)


@dataclass(frozen=True)
class _Fitting:
    """An ensemble, and what its members say."""

    root: EnsemblePlan
    objective: Objective
    fitted: Sequence[Rows]
    validation: Sequence[Rows]

    def judged(self, name: str, weigh: Callable[[Rows], torch.Tensor]) -> FitRow:
        """How weights do on both parts."""
        parts = (self.fitted, self.validation)
        return FitRow(name, *(score(self.objective, rows, weigh) for rows in parts))

    def constants(self) -> tuple[torch.Tensor, tuple[FitRow, ...]]:
        """The best constants, and how every member, uniform weights and these do."""
        members = self.root.members
        count = len(members)
        found = fit_constants(self.objective, self.fitted, count)
        alone = torch.eye(count, dtype=torch.float64)
        names = [*(m.name for m in members), "uniform weights", "constant weights"]
        weights = [*alone, alone.mean(0), found]
        rows = [self.judged(n, _constant(w)) for n, w in zip(names, weights, strict=True)]
        return found, tuple(rows)

    def gate(
        self,
        gate: _Trainable,
        constants: torch.Tensor,
        training: TrainingOptions,
        progress: Progress,
    ) -> tuple[nn.Module, GateFit, list[FitRow]]:
        """A trained gate, how the training went and how the gate does."""
        module, rule = gate.source.untrained(training.seed), gate.rule
        _start(module, constants, rule)
        fit = fit_gate(
            module, gate.names, gate.place, rule, self.objective,
            self.fitted, self.validation, training, progress,
        )  # fmt: skip

        def weigh(which: GateRule) -> Callable[[Rows], torch.Tensor]:
            return lambda rows: log_weights(
                gate_scores(module, rows, gate.names, gate.place), which
            )

        rows = []
        if rule.top_k is not None:
            every = replace(rule, top_k=None)
            rows.append(self.judged("gate, all members", weigh(every)))
        return module, fit, [*rows, self.judged("gate", weigh(rule))]


@dataclass(frozen=True)
class _Trainable:
    source: FactorySource
    rule: GateRule
    names: dict[str, str]
    place: int


def _objective(root: Node) -> Objective:
    if not isinstance(root, EnsemblePlan):
        raise RecipeError(
            f"the model {root.name!r} is no ensemble, so it has no weights to fit",
            hint="model: {ensemble: {combine: linear, members: […]}}",
        )
    if root.space == "values":
        raise RecipeError(
            f"ensemble {root.name!r} combines values, which have no likelihood to fit weights by",
            hint="fit ensembles of logits or probabilities",
        )
    return Objective(root.combine, root.space)


def _trainable(root: EnsemblePlan) -> _Trainable:
    gate: GatePlan | None = root.gate
    if gate is None:
        raise RecipeError(
            f"ensemble {root.name!r} has no gate to train",
            hint="add gate: {model: …}, or fit constant weights with --constant",
        )
    leaf = gate.model
    if not isinstance(leaf, LeafPlan) or not isinstance(leaf.origin, FactorySource):
        raise RecipeError(
            f"the gate {leaf.name!r} is not a factory, and only those are trained here",
            hint="name one of toolkit.gates, or your own; others are used as they are",
        )
    source = leaf.origin
    names = {spec.name: leaf.rename.get(spec.name, spec.name) for spec in source.inputs}
    return _Trainable(source, gate.rule, names, source.outputs.index(gate.rule.output))


def _rows(  # noqa: PLR0913, PLR0917
    plan: Plan,
    root: EnsemblePlan,
    data: Data,
    options: FitOptions,
    objective: Objective,
    cache: OutputCache,
    progress: Progress,
) -> tuple[list[Rows], list[Rows]]:
    """What members say, of the batches to fit and of those for validation."""
    split = data.split
    # A mixture is fitted by the labels' probabilities alone; texts have too many classes to keep.
    full = objective.combine == "log_linear" or not data.text
    keep_label = label_log_probabilities(objective.space)
    labels: list[list[Any]] = []
    outputs: list[list[Any]] = []
    for member in root.members:
        key = output_key(plan, data, options, root.output, full, described(member))
        found = cache.outputs(
            key, member.name, part_runner(member), root.output, split.batches,
            whole if full else keep_label, progress,
        )  # fmt: skip
        if full:
            outputs.append(found)
            pairs = zip(found, split.batches, strict=True)
            found = [keep_label(output, batch) for output, batch in pairs]
        labels.append(found)
    every = gather(split.batches, labels, outputs)
    return every[: len(split.fitted)], every[len(split.fitted) :]


def _constant(weights: torch.Tensor) -> Callable[[Rows], torch.Tensor]:
    return lambda rows: weights.double().log().expand(len(rows.labels), len(weights))


def _start(module: nn.Module, constants: torch.Tensor, rule: GateRule) -> None:
    """Let a gate of ours begin where the constants are."""
    inner = getattr(module, "module", None)
    begin = getattr(inner, "start_at", None)
    if begin is not None:
        least = constants.clamp(min=1e-6)
        begin((least.log() if rule.activation == "softmax" else least.expm1().log()).float())
