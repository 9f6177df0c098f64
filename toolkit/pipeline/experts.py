"""Which lowering the experts of a recipe get, by rule or by a measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import graphs
from toolkit.artifacts import span_of
from toolkit.bundle import ExpertRecord
from toolkit.pipeline.plan import Plan
from toolkit.progress import Progress
from toolkit.runtime import Feeds, OrtRunner

__all__ = ["LOWERINGS", "expert_passes", "fastest_lowering", "settle_experts", "token_counts"]

LOWERINGS: Mapping[str, type[graphs.Pass]] = {
    "conditionals": graphs.ExpertsToConditionals,
    "rows": graphs.ExpertsToRows,
    "dense": graphs.ExpertsToDense,
    "batched": graphs.ExpertsToBatched,
    "native": graphs.ExpertsToNative,
}

# Building a TensorRT engine takes time quadratic in the conditionals: 4 s for 32, 43 s for 128.
_MOST_CONDITIONALS = 32
# Running all experts on all tokens can only win where there are few.
_FEW_EXPERTS = 16
_MOST_BYTES = 1 << 29  # of a layer that is measured: every lowering holds a copy meanwhile
_MOST_TOKENS = 2048
# An operator that only ONNX Runtime has must be this many times faster than those of any runtime.
_WORTH_A_RUNTIME = 1.15
_WARM_UP, _ROUNDS, _SECONDS = 2, 21, 0.4
_BATCHES = 4  # of random rows in turn: one batch would keep its experts in the processor's caches


def expert_passes(plan: Plan) -> tuple[graphs.Pass, ...]:
    """What becomes of layers of experts, after the passes that a recipe names.

    ``auto`` that was not settled, because no graph was at hand to measure, goes by rule.
    """
    wanted = plan.recipe.export.experts
    if wanted == "keep":
        return ()
    if wanted == "native" and plan.recipe.target == "tensorrt":
        return (graphs.ExpertsToNative(runtime="tensorrt"),)
    lowering = "rows" if wanted == "auto" else wanted
    return (LOWERINGS[lowering](),)


def settle_experts(
    plan: Plan, exported: Iterable[Path], progress: Progress
) -> tuple[Plan, ExpertRecord | None]:
    """The plan with a lowering in place of ``auto``, and why; None without layers of experts.

    For TensorRT the rule is how long building takes. For ONNX Runtime one layer of each kind is
    cut out and timed in every lowering that could be the best, over the recipe's range of tokens.
    """
    finding = _finding(plan)
    layers = [(path, layer) for path in exported for layer in graphs.expert_layers(path, finding)]
    layers = [(path, layer) for path, layer in layers if layer.lowering == "none"]
    if not layers:
        return plan, None
    wanted = plan.recipe.export.experts
    if wanted != "auto":
        return plan, ExpertRecord(lowering=wanted, reason="the recipe says so")
    most = max(layer.experts for _, layer in layers)
    if plan.recipe.target != "onnx":
        record = _by_rule(most)
    elif any(layer.bytes > _MOST_BYTES for _, layer in layers):
        reason = f"a layer of experts has more than {_MOST_BYTES >> 20} MiB, too much to measure"
        record = ExpertRecord(lowering="conditionals", reason=reason)
    else:
        record = fastest_lowering(layers, token_counts(plan), progress, finding)
    export = plan.recipe.export.model_copy(update={"experts": record.lowering})
    return replace(plan, recipe=plan.recipe.model_copy(update={"export": export})), record


def _finding(plan: Plan) -> tuple[graphs.Pass, ...]:
    """The pass that finds layers in graphs of others, where the recipe names it."""
    name = graphs.FindMoeBlocks.name
    return tuple(
        graphs.PASSES[name](**step.options()) for step in plan.recipe.passes if step.name == name
    )


def _by_rule(most: int) -> ExpertRecord:
    if most <= _MOST_CONDITIONALS:
        reason = f"TensorRT, and at most {most} experts, wanted {_MOST_CONDITIONALS} for an If each"
        return ExpertRecord(lowering="conditionals", reason=reason)
    reason = f"TensorRT, and {most} experts: building takes too long with an If for each"
    return ExpertRecord(lowering="rows", reason=reason)


@dataclass(frozen=True)
class _Kind:
    """Layers that differ in nothing but their weights, and where one of them is."""

    path: Path
    layer: graphs.ExpertLayer
    count: int


def _kinds(layers: Sequence[tuple[Path, graphs.ExpertLayer]]) -> Iterator[_Kind]:
    groups: dict[graphs.ExpertLayer, list[tuple[Path, graphs.ExpertLayer]]] = {}
    for path, layer in layers:
        groups.setdefault(replace(layer, name="", routing="", ids=""), []).append((path, layer))
    for found in groups.values():
        yield _Kind(*found[0], len(found))


def fastest_lowering(
    layers: Sequence[tuple[Path, graphs.ExpertLayer]],
    tokens: Sequence[int],
    progress: Progress,
    finding: Sequence[graphs.Pass] = (),
) -> ExpertRecord:
    """The lowering with the lowest geometric mean of time over token counts.

    Args:
        layers: Each with the file that holds it.
        tokens: How many tokens a run has.
        progress: Told of every kind of layer.
        finding: Passes that the files need before their layers can be seen.
    """
    few = max(layer.experts for _, layer in layers) <= _FEW_EXPERTS
    names = ["conditionals", "rows", *(["dense", "batched"] if few else [])]
    if all(layer.routing.startswith("TopKGating") for _, layer in layers):
        names.append("native")
    seconds: dict[str, list[float]] = {name: [0.0] * len(tokens) for name in names}
    kinds = list(_kinds(layers))
    for done, kind in enumerate(kinds):
        progress("measure lowerings of experts", done, len(kinds))
        found = _times(kind, list(seconds), tokens, finding)
        seconds = {
            name: [a + kind.count * b for a, b in zip(seconds[name], each, strict=True)]
            for name, each in found.items()
        }
    progress("measure lowerings of experts", len(kinds), len(kinds))
    means = {name: _geometric(found) for name, found in seconds.items()}
    portable = {name: mean for name, mean in means.items() if name != "native"}
    best = min(portable, key=portable.__getitem__)
    if means.get("native", math.inf) * _WORTH_A_RUNTIME < means[best]:
        best = "native"
    shown = ", ".join(f"{name} {1e3 * mean:.3g} ms" for name, mean in means.items())
    counts = ", ".join(map(str, tokens))
    reason = f"fastest in ONNX Runtime at {counts} tokens: {shown} (geometric means)"
    milliseconds = {
        name: {str(count): round(1e3 * each, 4) for count, each in zip(tokens, found, strict=True)}
        for name, found in seconds.items()
    }
    return ExpertRecord(lowering=best, reason=reason, milliseconds=milliseconds)


def _times(
    kind: _Kind, names: Sequence[str], tokens: Sequence[int], finding: Sequence[graphs.Pass]
) -> dict[str, list[float]]:
    """Seconds of one layer in every lowering that fits it, at every number of tokens."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        cut = Path(folder) / "layer.onnx"
        graphs.cut_experts(kind.path, kind.layer.name, cut, finding)
        runners: dict[str, OrtRunner] = {}
        for name in names:
            lowered = Path(folder) / f"{name}.onnx"
            (report,) = graphs.rewrite(cut, [LOWERINGS[name]()], lowered)
            if name != "native" or not report.near_misses:
                runners[name] = stack.enter_context(OrtRunner(lowered, spinning=False))
            lowered.unlink()
        medians = [_in_turn(kind.layer, runners, count) for count in tokens]
    return {name: [each[name] for each in medians] for name in runners}


def _feeds(layer: graphs.ExpertLayer, tokens: int, runner: OrtRunner, seed: int) -> Feeds:
    """Random rows, each to ``top_k`` experts at random."""
    random = np.random.default_rng([tokens, seed])
    wide = next(spec for spec in runner.inputs if spec.name == "x")
    drawn = random.normal(size=(tokens, layer.hidden)).astype(wide.dtype)
    logits = random.normal(size=(tokens, layer.experts)).astype(np.float32)
    ids = np.argsort(-logits, axis=1)[:, : max(layer.top_k, 1)]
    if not any(spec.name == "logits" for spec in runner.inputs):
        drawn = np.repeat(drawn, ids.shape[1], axis=0)  # it reads a row for every slot
    return {"x": drawn, "logits": logits, "ids": np.ascontiguousarray(ids)}


def _in_turn(
    layer: graphs.ExpertLayer, runners: Mapping[str, OrtRunner], tokens: int
) -> dict[str, float]:
    """Each one's median over rounds in which all run the same rows, within a time limit.

    In turn, because a layer in a model follows others: run by itself over and over, it would find
    its weights in the processor's caches. Threads that spin after one's run would take time from
    the next, and every other round goes backwards, because one may leave caches warm for another.
    """
    first = next(iter(runners.values()))
    batches = [_feeds(layer, tokens, first, seed) for seed in range(_BATCHES)]
    found: dict[str, list[float]] = {name: [] for name in runners}
    end = math.inf
    for turn in range(_WARM_UP + _ROUNDS):
        if turn == _WARM_UP:
            end = time.perf_counter() + _SECONDS * len(runners)
        elif turn > _WARM_UP and time.perf_counter() > end:
            break
        for name, runner in list(runners.items())[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            runner(batches[turn % _BATCHES])
            found[name].append(time.perf_counter() - start)
    return {name: float(np.median(times[_WARM_UP:])) for name, times in found.items()}


def token_counts(plan: Plan) -> tuple[int, ...]:
    """How many tokens a batch has at the smallest, the usual and the largest sizes."""
    names = {
        dim
        for spec in plan.inputs
        for dim in spec.shape
        if isinstance(dim, str) and not dim.startswith("past")
    }
    spans = [span_of(name, plan.shapes) for name in names if name in plan.shapes]
    sizes = (
        math.prod(span.min for span in spans),
        math.prod(span.opt for span in spans),
        math.prod(span.max for span in spans),
    )
    return tuple(sorted({min(max(size, 1), _MOST_TOKENS) for size in sizes}))


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
