"""``fit-gate`` on a stack: stages run over held-out data, and the last one learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch

from toolkit.errors import RecipeError
from toolkit.fitting import Batch, OutputCache, Score, Trainee, fit_combiner, judge, said
from toolkit.pipeline.fit_data import Data, read_data
from toolkit.pipeline.fit_parts import FitOptions, described, output_key, write_weights
from toolkit.pipeline.fit_report import FitReport, FitRow
from toolkit.pipeline.plan import EnsemblePlan, LeafPlan, Node, Plan, StackPlan
from toolkit.pipeline.reference import part_runner
from toolkit.progress import Progress
from toolkit.sources import FactorySource

__all__ = ["fit_stack"]

_Array = npt.NDArray[Any]
_Space = Literal["logits", "probabilities"]


def fit_stack(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    plan: Plan,
    stack: StackPlan,
    data: Path,
    out: Path | None,
    options: FitOptions,
    progress: Progress,
) -> FitReport:
    """Train the last stage of a stack, the others frozen; see ``fit_recipe``."""
    leaf, source = _trainable(stack, constant=options.constant)
    examples = read_data(data, plan, options.share, options.batch, options.window)
    count = len(examples.split.fitted)
    with OutputCache(options.cache) as cache:
        batches, spoken = _spoken(plan, stack, examples, options, cache, progress)
        rows = _rows(stack, batches, spoken, count)
        training = replace(options.training, seed=plan.recipe.seed)
        names = {spec.name: leaf.rename.get(spec.name, spec.name) for spec in source.inputs}
        place = source.outputs.index("logits") if "logits" in source.outputs else 0
        trainee = Trainee(source.untrained(training.seed), names, place)
        fit = fit_combiner(trainee, batches[:count], batches[count:], training, progress)
        scores = (
            judge(part, lambda number, part=part: trainee.logits(part[number]).log_softmax(-1))  # type: ignore[misc]
            for part in (batches[:count], batches[count:])
        )
        rows.append(FitRow("combiner", *scores))
        target = out or source.weights
        write_weights(trainee.module, target)
    return FitReport(tuple(rows), (), target, fit, text=examples.text)


def _trainable(stack: StackPlan, *, constant: bool) -> tuple[LeafPlan, FactorySource]:
    if constant:
        raise RecipeError(
            f"the stack {stack.name!r} has no constant weights to fit",
            hint="leave --constant out to train its last stage",
        )
    leaf = stack.stages[-1]
    if not isinstance(leaf, LeafPlan) or not isinstance(leaf.origin, FactorySource):
        raise RecipeError(
            f"the last stage {leaf.name!r} is not a factory, and only those are trained here",
            hint="name toolkit.gates:combiner, or a factory of your own",
        )
    return leaf, leaf.origin


def _spoken(  # noqa: PLR0913, PLR0917
    plan: Plan,
    stack: StackPlan,
    data: Data,
    options: FitOptions,
    cache: OutputCache,
    progress: Progress,
) -> tuple[list[Batch], dict[str, list[_Array]]]:
    """The examples with what every stage before the last feeds, and that by feed."""
    batches = list(data.split.batches)
    spoken: dict[str, list[_Array]] = {}
    before: list[str] = []
    for stage in stack.stages[:-1]:
        before.append(described(stage))
        mine = {name: feed for name, feed in stack.feeds.items() if feed.stage == stage.name}
        for name, feed in mine.items():
            key = output_key(plan, data, options, feed.output, stack.feeds, before)
            spoken[name] = cache.outputs(
                key, stage.name, part_runner(stage), feed.output, batches, progress=progress
            )
        batches = [
            Batch(
                {
                    **batch.feeds,
                    **{
                        name: spoken[name][number].astype(feed.spec.dtype, copy=False)
                        for name, feed in mine.items()
                    },
                },
                batch.labels,
            )
            for number, batch in enumerate(batches)
        ]
    return batches, spoken


def _rows(
    stack: StackPlan, batches: Sequence[Batch], spoken: dict[str, list[_Array]], count: int
) -> list[FitRow]:
    """How each stage that gives a distribution does, and their uniform mixture."""
    stages = {stage.name: stage for stage in stack.stages}
    found: dict[str, tuple[list[_Array], _Space]] = {}
    for name, feed in stack.feeds.items():
        space = _space(stages[feed.stage], feed.output)
        arrays = spoken[name]
        if space is not None and arrays[0].shape[:-1] == batches[0].labels.shape:
            found.setdefault(feed.stage, (arrays, space))

    def scores(members: Sequence[tuple[list[_Array], _Space]]) -> tuple[Score, Score]:
        def speak(number: int) -> torch.Tensor:
            logs = [said(arrays[number], batches[number], space) for arrays, space in members]
            return torch.stack(logs).logsumexp(0) - torch.tensor(len(logs)).double().log()

        fitted = judge(batches[:count], speak)
        return fitted, judge(batches[count:], lambda number: speak(count + number))

    rows = [FitRow(name, *scores([member])) for name, member in found.items()]
    classes = {arrays[0].shape[-1] for arrays, _ in found.values()}
    if len(found) > 1 and len(classes) == 1:
        rows.append(FitRow("uniform mixture", *scores(list(found.values()))))
    return rows


def _space(stage: Node, output: str) -> _Space | None:
    """Logits or probabilities, where that is known: of an ensemble, or by the usual name."""
    while isinstance(stage, StackPlan):
        stage = stage.stages[-1]
    if isinstance(stage, EnsemblePlan):
        return None if stage.space == "values" else stage.space
    if output in {"logits", "probabilities"}:
        return "logits" if output == "logits" else "probabilities"
    return None
