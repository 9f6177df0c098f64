"""Which lowering the experts of a recipe get, by rule or by a measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_MOST_BYTES = 1 << 30  # of a layer that is copied to be measured
_MOST_TOKENS = 2048
# An operator that only ONNX Runtime has must be this many times faster than those of any runtime.
_WORTH_A_RUNTIME = 1.25
_WARM_UP, _RUNS, _SECONDS = 2, 15, 0.4


def expert_passes(plan: Plan) -> tuple[graphs.Pass, ...]:
    """What becomes of layers of experts, after the passes that a recipe names.

    ``auto`` that was not settled, because no graph was at hand to measure, goes by rule.
    """
    wanted = plan.recipe.export.experts
    if wanted == "keep":
        return ()
    lowering = "rows" if wanted == "auto" else wanted
    return (LOWERINGS[lowering](),)


def settle_experts(
    plan: Plan, exported: Iterable[Path], progress: Progress
) -> tuple[Plan, ExpertRecord | None]:
    """The plan with a lowering in place of ``auto``, and why; None without layers of experts.

    For TensorRT the rule is how long building takes. For ONNX Runtime one layer of each kind is
    cut out and timed in every lowering that could be the best, over the recipe's range of tokens.
    """
    layers = [(path, layer) for path in exported for layer in graphs.expert_layers(path)]
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
        reason = f"a layer of experts has more than {_MOST_BYTES >> 30} GiB, too much to measure"
        record = ExpertRecord(lowering="conditionals", reason=reason)
    else:
        record = fastest_lowering(layers, token_counts(plan), progress)
    export = plan.recipe.export.model_copy(update={"experts": record.lowering})
    return replace(plan, recipe=plan.recipe.model_copy(update={"export": export})), record


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
    layers: Sequence[tuple[Path, graphs.ExpertLayer]], tokens: Sequence[int], progress: Progress
) -> ExpertRecord:
    """The lowering with the lowest geometric mean of time over token counts.

    Args:
        layers: Each with the file that holds it.
        tokens: How many tokens a run has.
        progress: Told of every kind of layer.
    """
    few = max(layer.experts for _, layer in layers) <= _FEW_EXPERTS
    names = ["conditionals", "rows", *(["dense", "batched"] if few else [])]
    if all(layer.routing.startswith("TopKGating") for _, layer in layers):
        names.append("native")
    seconds: dict[str, list[float]] = {name: [0.0] * len(tokens) for name in names}
    kinds = list(_kinds(layers))
    for done, kind in enumerate(kinds):
        progress("measure lowerings of experts", done, len(kinds))
        found = _times(kind, list(seconds), tokens)
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


def _times(kind: _Kind, names: Sequence[str], tokens: Sequence[int]) -> dict[str, list[float]]:
    """Seconds of one layer in every lowering that fits it, at every number of tokens."""
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        cut = Path(folder) / "layer.onnx"
        graphs.cut_experts(kind.path, kind.layer.name, cut)
        for name in names:
            lowered = Path(folder) / f"{name}.onnx"
            (report,) = graphs.rewrite(cut, [LOWERINGS[name]()], lowered)
            if name == "native" and report.near_misses:
                continue
            with OrtRunner(lowered) as runner:
                found[name] = [_time(runner, _feeds(kind.layer, count, runner)) for count in tokens]
            lowered.unlink()
    return found


def _feeds(layer: graphs.ExpertLayer, tokens: int, runner: OrtRunner) -> Feeds:
    """Random rows, each to ``top_k`` experts at random."""
    random = np.random.default_rng(tokens)
    wide = next(spec for spec in runner.inputs if spec.name == "x")
    drawn = random.normal(size=(tokens, layer.hidden)).astype(wide.dtype)
    logits = random.normal(size=(tokens, layer.experts)).astype(np.float32)
    ids = np.argsort(-logits, axis=1)[:, : max(layer.top_k, 1)]
    if not any(spec.name == "logits" for spec in runner.inputs):
        drawn = np.repeat(drawn, ids.shape[1], axis=0)  # it reads a row for every slot
    return {"x": drawn, "logits": logits, "ids": np.ascontiguousarray(ids)}


def _time(runner: OrtRunner, feeds: Feeds) -> float:
    """The median of a few runs, within a time limit."""
    for _ in range(_WARM_UP):
        runner(feeds)
    found: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(found) < _RUNS and (not found or time.perf_counter() < end):
        start = time.perf_counter()
        runner(feeds)
        found.append(time.perf_counter() - start)
    return float(np.median(found))


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
