"""Whether a recipe's down projections skip silent neurons, by what they say and a measurement."""

from __future__ import annotations

import glob
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import graphs
from toolkit.bundle import LayerRecord, NeuronRecord
from toolkit.errors import RecipeError
from toolkit.pipeline.experts import token_counts
from toolkit.pipeline.neuron_trials import FEW, Activity, Trial, activities, try_layer
from toolkit.pipeline.plan import Plan
from toolkit.progress import Progress

__all__ = ["settle_neurons"]

# Below so many weights the counting alone takes longer than the product.
_LEAST_WEIGHTS = 1 << 18
_MOST_BYTES = 1 << 30  # of a layer that is copied to be measured
# Fewer silent neurons pay nowhere: the break-even that was seen lies at four of five.
_LEAST_SILENT = 0.5
# What is chosen is faster on the whole by so much, and nowhere slower by more than that.
_GAIN, _LOSS = 0.97, 1.02


def settle_neurons(
    plan: Plan, graph: Path, progress: Progress
) -> tuple[Plan, tuple[graphs.PassReport, ...], NeuronRecord | None]:
    """Rewrite the layers of ``graph`` in place that gain; None where no layer has a ReLU.

    With ``auto`` every layer's activations are looked at, one layer of each kind is timed at
    several shares of silent neurons, and each layer on the activations that it was seen to have.

    Args:
        plan: What the graph computes.
        graph: The fused graph.
        progress: Told of every layer.

    Raises:
        RecipeError: If the recipe says ``on`` and no layer can skip, or the target cannot.
    """
    wanted = plan.recipe.export.silent_neurons
    if wanted == "off":
        return plan, (), None
    layers = graphs.silent_layers(graph)
    reason = _unfit(plan, layers)
    if wanted == "on":
        if reason is not None:
            raise RecipeError(
                f"export.silent_neurons is on, and {reason}",
                hint="silent_neurons: auto leaves such a graph as it is",
            )
        reports = graphs.rewrite(graph, [graphs.SkipSilentNeurons()], graph)
        seen, found = activities(plan, graph, layers, progress)
        records = {
            layer.name: _record(layer, found.get(layer.activation), None, skipped=True)
            for layer in layers
        }
        return plan, tuple(reports), NeuronRecord(
            reason="the recipe says so", seen=seen, layers=records
        )  # fmt: skip
    if not layers:
        return plan, (), None
    if reason is None and not any(_large(layer) for layer in layers):
        reason = f"no layer after a ReLU has {_LEAST_WEIGHTS:,} weights, so nothing was measured"
    if reason is not None:
        return _chosen(plan, "off"), (), NeuronRecord(reason=reason, seen="none", layers={})
    return _measured(plan, graph, layers, progress)


def _unfit(plan: Plan, layers: Sequence[graphs.SilentLayer]) -> str | None:
    """Why nothing can be skipped."""
    export = plan.recipe.export
    if plan.recipe.target != "onnx":
        return f"the target is {plan.recipe.target}, whose parser takes no NonZero, wanted onnx"
    if export.precision != "float32":
        return f"export.precision is {export.precision}, wanted float32"
    if not layers:
        return "no down projection reads a ReLU"
    least = min(token_counts(plan))
    if least > max(FEW):
        return f"the recipe's shapes have at least {least} tokens, wanted at most {max(FEW)}"
    return None


def _large(layer: graphs.SilentLayer) -> bool:
    return layer.neurons * layer.width >= _LEAST_WEIGHTS and layer.bytes <= _MOST_BYTES


def _measured(
    plan: Plan, graph: Path, layers: Sequence[graphs.SilentLayer], progress: Progress
) -> tuple[Plan, tuple[graphs.PassReport, ...], NeuronRecord]:
    seen, found = activities(plan, graph, layers, progress)
    counts = token_counts(plan)
    kinds = Counter((layer.neurons, layer.width) for layer in layers)
    known: dict[tuple[int, int], Mapping[int, float]] = {}
    records: dict[str, LayerRecord] = {}
    steps: list[graphs.Pass] = []
    for done, layer in enumerate(layers):
        progress("measure silent neurons", done, len(layers))
        activity, trial = found.get(layer.activation), None
        if activity is not None and _large(layer) and activity.silent[1] >= _LEAST_SILENT:
            kind = (layer.neurons, layer.width)
            trial = try_layer(
                graph, layer, activity,
                counts=counts, break_even=known.get(kind), alike=kinds[kind],
            )  # fmt: skip
            known.setdefault(kind, trial.break_even)
        skipped = trial is not None and _gains(trial)
        records[layer.name] = _record(layer, activity, trial, skipped=skipped)
        if skipped and trial is not None:
            steps.append(graphs.SkipSilentNeurons(trial.limits, (glob.escape(layer.name),)))
    progress("measure silent neurons", len(layers), len(layers))
    reports = graphs.rewrite(graph, steps, graph) if steps else []
    said = f"faster for {len(steps)} of {len(layers)} layers in ONNX Runtime, at " + ", ".join(
        map(str, counts)
    )
    record = NeuronRecord(reason=f"{said} tokens", seen=seen, layers=records)
    return _chosen(plan, "on" if steps else "off"), tuple(reports), record


def _gains(trial: Trial) -> bool:
    """Faster in the geometric mean over the recipe's numbers of tokens, and nowhere slower."""
    ratios = [skipping / whole for whole, skipping in trial.seconds.values()]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return min(ratios) <= _GAIN and mean <= 1 and max(ratios) <= _LOSS


def _record(
    layer: graphs.SilentLayer, activity: Activity | None, trial: Trial | None, *, skipped: bool
) -> LayerRecord:
    silent = {} if activity is None else activity.silent
    return LayerRecord(
        neurons=layer.neurons,
        width=layer.width,
        skipped=skipped,
        silent={str(count): round(share, 4) for count, share in silent.items()},
        break_even=None if trial is None else {
            str(count): round(share, 3) for count, share in trial.break_even.items()
        },
        milliseconds=None if trial is None else {
            str(count): (round(1e3 * whole, 4), round(1e3 * skipping, 4))
            for count, (whole, skipping) in trial.seconds.items()
        },
    )  # fmt: skip


def _chosen(plan: Plan, what: str) -> Plan:
    export = plan.recipe.export.model_copy(update={"silent_neurons": what})
    return replace(plan, recipe=plan.recipe.model_copy(update={"export": export}))
