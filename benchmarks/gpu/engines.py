"""Engines of every kind of model: built, proven on this machine's GPU, and timed.

    python -m benchmarks.gpu.engines --write docs/gpu-results.md

exports and proves each model, builds its engines (TensorRT's where it is installed; TensorRT-RTX's
anywhere, for it needs no GPU), runs the whole proof again on each engine, and times it beside ONNX
Runtime on the GPU, eager PyTorch and torch.compile. It measures whether an ``If`` skips, and builds
twice from one timing cache. What this machine lacks is listed as *not run*; exit status 1 when
something that was run fails.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.eager import contiguous, eager
from benchmarks.gpu.engine_models import SUBJECTS, Scale, Subject, write_subject
from benchmarks.gpu.skipping import layer_feeds, lowered_layer
from benchmarks.machine import machine, versions
from benchmarks.pages import put_section
from benchmarks.report import body, show
from benchmarks.rows import Row
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, Flavour, build_engine, missing
from toolkit.errors import CapabilityError, ToolkitError
from toolkit.feeds import make_feeds
from toolkit.pipeline import Plan, export_recipe, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.runtime import open_runtime, require_runtime

__all__ = ["Results", "main"]

COMMAND = "python -m benchmarks.gpu.engines"
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
ROUNDS, WARM_UP = 30, 5
SECTION = "Engines"


@dataclass
class Results:
    """What was measured, and what could not be.

    Attributes:
        rows: Figures.
        not_run: What this machine lacks, a line each.
    """

    rows: list[Row] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    def skip(self, what: str, why: object) -> None:
        """Note something that was not run."""
        self.not_run.append(f"{what}: {str(why).splitlines()[0]}")


def main(argv: list[str] | None = None) -> int:
    """Return 0, or 1 when something that was run fails."""
    arguments = _parser().parse_args(argv)
    scale = Scale.tiny() if arguments.tiny else Scale.full()
    chosen = [each for each in SUBJECTS if arguments.only in each.name]
    results = Results()
    with tempfile.TemporaryDirectory() as name:
        for subject in chosen:
            print(f"{subject.name}", file=sys.stderr, flush=True)
            measure_subject(subject, Path(name) / subject.name.replace(" ", "_"), scale, results)
        if not arguments.only or "skip" in arguments.only:
            measure_skipping(Path(name) / "skipping", scale, results)
    place = machine()
    if torch.cuda.is_available():
        place = {**place, "processor": f"{torch.cuda.get_device_name()}, {place['processor']}"}
    result = {
        "benchmark": "gpu/engines",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": COMMAND,
        "machine": place,
        "versions": versions(),
        "rows": [row.as_json() for row in results.rows],
        "not_run": results.not_run,
        "holds": all(row.holds for row in results.rows),
    }
    if arguments.write:
        put_section(arguments.write, SECTION, _text(result))
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        show(result)
        print("\n".join(f"not run: {line}" for line in results.not_run))
    return 0 if result["holds"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Engines of every kind of model.")
    parser.add_argument("--tiny", action="store_true", help="tiny models: whether all of it works")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name has this")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the result into a page")
    return parser


def _text(result: dict[str, Any]) -> str:
    lines = body(result).strip()
    missing_here = "".join(f"\n- *not run*: {line}" for line in result["not_run"])
    return f"{lines}\n{missing_here}"


def measure_subject(subject: Subject, folder: Path, scale: Scale, results: Results) -> None:
    """Export, prove, build, prove again on every engine, and time."""
    recipe = write_subject(subject, folder, scale, "onnx")
    started = time.perf_counter()
    outcome = export_recipe(recipe, folder, folder / "bundle")
    seconds = time.perf_counter() - started
    passed = int(outcome.report.passed)
    results.rows += [
        Row(f"{subject.name}: proof of the graph on the CPU", passed, "passed", floor=1),
        Row(f"{subject.name}: export and proof", seconds, "s"),
    ]
    plan = make_plan(recipe, folder)
    graph = folder / "bundle" / "model.onnx"
    runs: dict[str, Callable[[Any], object]] = {}
    with ExitStack() as stack:
        for flavour in FLAVOURS:
            _engine(subject, flavour, plan, graph, results, runs, stack)
        _peers(subject, plan, graph, results, runs, stack)
        _timed(subject, plan, scale, results, runs)


def _engine(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    subject: Subject,
    flavour: Flavour,
    plan: Plan,
    graph: Path,
    results: Results,
    runs: dict[str, Callable[[Any], object]],
    stack: ExitStack,
) -> None:
    """Build an engine beside a copy of the graph; where there is a GPU, prove and open it."""
    what = f"{subject.name}: {flavour} engine"
    lacking = missing(flavour)
    if lacking:
        results.skip(what, "this machine lacks " + " and ".join(lacking))
        return
    if flavour == "tensorrt":
        _twice(subject, plan, graph, results)
    place = graph.with_name("model.plan")
    try:
        built = build_engine(graph, plan.shapes, EngineOptions(flavour=flavour), place)
    except ToolkitError as error:
        print(f"wrong: {what}: {error}", file=sys.stderr)
        results.rows.append(Row(f"{what}, built", 0, "built", floor=1))
        return
    results.rows += [
        Row(f"{what}, built", 1, "built", floor=1),
        Row(f"{what}, time to build", built.seconds, "s"),
        Row(f"{what}, size", place.stat().st_size / 2**20, "MiB"),
    ]
    try:
        require_runtime(flavour)
    except CapabilityError as error:
        results.skip(f"{what}, proof and time", error)
        return
    report = prove_plan(plan, graph, runtime=flavour)
    results.rows.append(Row(f"{what}, all gates", int(report.passed), "passed", floor=1))
    runs[flavour] = stack.enter_context(open_runtime(flavour, place))
    captured = stack.enter_context(open_runtime(flavour, place, cuda_graph=True))
    runs[f"{flavour}, CUDA graph"] = captured


def _twice(subject: Subject, plan: Plan, graph: Path, results: Results) -> None:
    """Two builds from one timing cache: the second times no kernel."""
    cache = graph.with_name("timing.cache")
    options = EngineOptions(flavour="tensorrt", timing_cache=cache)
    places = [graph.with_name(f"{number}.plan") for number in (1, 2)]
    built = [build_engine(graph, plan.shapes, options, place) for place in places]
    same = int(places[0].read_bytes() == places[1].read_bytes())
    first, second = (each.seconds for each in built)
    results.rows += [
        Row(f"{subject.name}: build with an empty timing cache", first, "s"),
        Row(f"{subject.name}: build again from that cache", second, "s"),
        Row(f"{subject.name}: the two plans", same, "equal"),
    ]
    for path in (*places, cache):
        path.unlink(missing_ok=True)


def _peers(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    subject: Subject,
    plan: Plan,
    graph: Path,
    results: Results,
    runs: dict[str, Callable[[Any], object]],
    stack: ExitStack,
) -> None:
    try:
        runs["ONNX Runtime CUDA"] = stack.enter_context(open_runtime("cuda", graph))
    except ToolkitError as error:
        results.skip(f"{subject.name}: ONNX Runtime CUDA", error)
    if not torch.cuda.is_available():
        results.skip(f"{subject.name}: PyTorch on the GPU", "this machine lacks a CUDA device")
        return
    runs["eager PyTorch"] = eager(plan, "cuda")
    runs["torch.compile"] = eager(plan, "cuda", compiled=True)


def _timed(
    subject: Subject,
    plan: Plan,
    scale: Scale,
    results: Results,
    runs: dict[str, Callable[[Any], object]],
) -> None:
    """Milliseconds of a run at the usual sizes, from arrays on the host and back."""
    dims = {name: span.opt for name, span in plan.shapes.items()}
    feeds = contiguous(make_feeds(plan.inputs, dims, np.random.default_rng(0)))
    found = dict(_medians(runs, feeds, results, subject.name))
    sizes = ", ".join(f"{name} {size}" for name, size in dims.items())
    title = f"{subject.name} ({sizes}; {scale.layers} layers, {scale.width} wide)"
    for name in [each for each in FLAVOURS if each in found]:
        beside = {peer: value for peer, value in found.items() if peer != name}
        results.rows.append(Row(f"{title}: {name}", found[name], "ms", beside=beside))


def _medians(
    runs: dict[str, Callable[[Any], object]], feeds: Any, results: Results, subject: str
) -> Iterator[tuple[str, float]]:
    """One peer's compiler that fails takes nothing from the others."""
    for name, run in runs.items():
        try:
            yield name, 1e3 * _time(run, feeds)
        except Exception as error:  # noqa: BLE001, PERF203 - whatever a peer's compiler raises
            results.skip(f"{subject}: time of {name}", error)


def _time(run: Callable[[Any], object], feeds: Any) -> float:
    for _ in range(WARM_UP):
        run(feeds)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run(feeds)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def measure_skipping(folder: Path, scale: Scale, results: Results) -> None:
    """A layer of experts, an ``If`` each: one pair of experts chosen against all of them.

    Where an ``If`` runs both branches, or none is skipped, the times are equal.
    """
    subject = next(each for each in SUBJECTS if each.name == "experts, conditionals")
    keep = {"export": {"experts": "keep"}, "shapes": {"batch": 1, "sequence": [1, 8, 16]}}
    kept = Subject("experts", lambda place, size: subject.write(place, size) | keep)
    recipe = write_subject(kept, folder, scale, "onnx")
    graph = export_recipe(recipe, folder, folder / "bundle").folder / "model.onnx"
    layer_graph, layer = lowered_layer(graph, folder)
    tokens = scale.batch * scale.tokens
    feeds = {active: layer_feeds(layer, tokens, active) for active in (layer.top_k, layer.experts)}
    for flavour in FLAVOURS:
        what = f"skipping in {flavour}"
        if missing(flavour):
            results.skip(what, "this machine lacks " + " and ".join(missing(flavour)))
            continue
        plan = folder / f"{flavour}.plan"
        spans = _spans(layer_graph, tokens)
        build_engine(layer_graph, spans, EngineOptions(flavour=flavour), plan)
        results.rows.append(Row(f"{what}: engine of a layer, built", 1, "built", floor=1))
        try:
            with open_runtime(flavour, plan) as run:
                few, every = (1e3 * _time(run, each) for each in feeds.values())
        except CapabilityError as error:
            results.skip(f"{what}: time", error)
            continue
        title = f"{what}: {layer.top_k} of {layer.experts} experts active, {tokens} tokens"
        results.rows.append(Row(title, few, "ms", beside={"all active": every}))
    with open_runtime("cpu", layer_graph, threads=1) as run:
        few, every = (1e3 * _time(run, each) for each in feeds.values())
    title = f"skipping in ONNX Runtime on the CPU: {layer.top_k} of {layer.experts} active"
    results.rows.append(Row(title, few, "ms", beside={"all active": every}))


def _spans(graph: Path, tokens: int) -> dict[str, DimRange]:
    with open_runtime("cpu", graph) as run:
        names = [name for spec in run.inputs for name in spec.symbols]
    return {name: DimRange(1, tokens, tokens) for name in names}


if __name__ == "__main__":
    sys.exit(main())
