"""What happens to one planted fault, or one healthy graph: the tasks of the worker processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import onnx
import torch

from benchmarks.families import FAMILIES, Size, write_family
from benchmarks.faults import Site, choose, planted
from benchmarks.faults.model import PLANTED, Model
from benchmarks.peers import POLYGRAPHY, Answers, batches, polygraphy_verdicts, simple_verdicts
from benchmarks.proofs import Proof, Subject, reweighted, weight_names
from graphs import GraphError
from toolkit.errors import ToolkitError
from toolkit.parity.explain import Twin
from toolkit.pipeline import Plan, make_plan
from toolkit.pipeline.explain import explain_graph, telling_cases
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.twin import fresh_twin
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import Feeds, OrtRunner, Outputs

__all__ = ["Outcome", "check_healthy", "count_places", "export_family", "plant_faults", "start"]

# Of the worst cases of a proof, how many a localisation looks at.
_SAMPLES = 4
_WHOLE = "float32.onnx"


@dataclass(frozen=True)
class Outcome:
    """One fault, or one healthy graph.

    Attributes:
        family: The kind of model.
        kind: The fault; ``healthy`` for none.
        place: Where it was planted, or the seed of the healthy weights.
        change: The largest change of any output, in units of the healthy error.
        detected: Whether the graph would not be shipped.
        why: The gates that failed; for a pass, how near the nearest one is.
        peers: Whether each peer finds a fault.
        localised: Whether the planted node, or one that reads it, is named; None if not asked.
        named: The node that is named.
    """

    family: str
    kind: str
    place: str
    change: float
    detected: bool
    why: str
    peers: dict[str, bool]
    localised: bool | None = None
    named: str = ""


def start() -> None:
    """Prepare a worker: one thread, and silence from runtimes that are fed broken graphs."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def export_family(name: str, folder: Path, seed: int, size: Size) -> None:
    """Write a model of a family and its graph into an empty folder."""
    plan = write_family(FAMILIES[name], folder, seed, size)
    work = folder / "work"
    work.mkdir()
    fuse_leaves(plan, export_leaves(plan, work, silent), folder / "model.onnx", ())
    if plan.recipe.export.precision != "float32":
        whole = _in_float32(plan)
        work = folder / "whole"
        work.mkdir()
        fuse_leaves(whole, export_leaves(whole, work, silent), folder / _WHOLE, ())


def _in_float32(plan: Plan) -> Plan:
    export = plan.recipe.export.model_copy(update={"precision": "float32"})
    return replace(plan, recipe=plan.recipe.model_copy(update={"export": export}))


def count_places(folder: Path, places: int, seed: int) -> list[tuple[str, int]]:
    """The faults to plant in a graph, as (kind, number)."""
    return choose(Model.read(folder / "model.onnx"), places, seed)


def plant_faults(
    name: str, folder: Path, chosen: Sequence[tuple[str, int]], located: set[tuple[str, int]]
) -> list[Outcome]:
    """Plant faults one by one, prove every graph, and ask where the ``located`` ones are."""
    subject, healthy, graph = _subject(folder)
    outcomes: list[Outcome] = []
    answers: list[Answers] = []
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "model.onnx"
        for kind, number in chosen:
            site = planted(graph, kind, number, out)
            proof = subject.prove(out)
            outcome = _judged(subject, (name, kind, site.place), healthy, proof, out, answers)
            if proof.report is not None and outcome.detected and (kind, number) in located:
                outcome = _located(outcome, folder, site, proof, out)
            outcomes.append(outcome)
    return _with_polygraphy(outcomes, answers)


def check_healthy(name: str, folder: Path, seeds: Sequence[int], size: Size) -> list[Outcome]:
    """Prove the graph of ``folder``, which has that size, with new weights for every seed."""
    plan, graph = _plan(folder), onnx.load(folder / "model.onnx")
    names = weight_names(plan, graph)
    outcomes: list[Outcome] = []
    answers: list[Answers] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            drawn = write_family(FAMILIES[name], Path(place), seed, size)
            subject = Subject(drawn, _whole(folder))
            out = Path(place) / "model.onnx"
            reweighted(graph, names, subject.plan, out)
            proof = subject.prove(out)
            case = (name, "healthy", f"{folder.name} seed {seed}")
            outcomes.append(_judged(subject, case, proof, proof, out, answers))
    return _with_polygraphy(outcomes, answers)


def _plan(folder: Path) -> Plan:
    return make_plan(load_recipe(folder / "recipe.yaml", allow_code=True), folder)


@cache
def _whole(folder: Path) -> Callable[[Plan, Path], None] | None:
    """Writes the float32 graph of a plan of the same shape, where half precision ships."""
    if not (folder / _WHOLE).exists():
        return None
    graph = onnx.load(folder / _WHOLE)
    names = weight_names(_in_float32(_plan(folder)), graph)
    return partial(reweighted, graph, names)


@cache
def _subject(folder: Path) -> tuple[Subject, Proof, onnx.ModelProto]:
    subject = Subject(_plan(folder), _whole(folder))
    healthy = subject.prove(folder / "model.onnx")
    return subject, healthy, onnx.load(folder / "model.onnx")


@cache
def _twin(folder: Path) -> Twin:
    # Entered and never left: it is needed for as long as the process lives.
    return _OPEN.enter_context(fresh_twin(_subject(folder)[0].plan))


_OPEN = ExitStack()


def _judged(  # noqa: PLR0913, PLR0917  (one fault: where it is, what was proven, what is kept)
    subject: Subject,
    case: tuple[str, str, str],
    healthy: Proof,
    proof: Proof,
    graph: Path,
    answers: list[Answers],
) -> Outcome:
    fed = batches(subject.plan)
    expected, found = [subject.baselines[0](feeds) for feeds in fed], _answers(graph, fed)
    answers.append((expected, found))
    peers = simple_verdicts(expected, found)
    change = subject.change(healthy, proof)
    return Outcome(*case, change, not proof.passed, proof.reason, peers)


def _answers(graph: Path, fed: Sequence[Feeds]) -> list[Outputs] | None:
    """What ONNX Runtime makes of the batches, or None where it refuses."""
    try:
        with OrtRunner(graph, threads=1) as run:
            return [run(feeds) for feeds in fed]
    # A broken graph may fail in any way, and whichever it is, every peer would notice.
    except Exception:  # noqa: BLE001
        return None


def _with_polygraphy(outcomes: Sequence[Outcome], answers: Sequence[Answers]) -> list[Outcome]:
    found = polygraphy_verdicts(answers)
    return [
        replace(one, peers=one.peers | {POLYGRAPHY: verdict})
        for one, verdict in zip(outcomes, found, strict=True)
    ]


def _located(outcome: Outcome, folder: Path, site: Site, proof: Proof, graph: Path) -> Outcome:
    """Ask where the fault is; right is a planted node, or one that reads what it computes."""
    plan = _subject(folder)[0].plan
    samples = telling_cases(plan, proof.report, _SAMPLES, graph=graph)
    try:
        suspects = explain_graph(graph, _twin(folder), samples).suspects
    except (ToolkitError, GraphError) as error:
        return replace(outcome, localised=False, named=f"error: {error.message}")
    if not suspects:
        return replace(outcome, localised=False, named="nothing")
    first = suspects[0]
    right = _wanted(site, graph)
    hit = any(_is_one_of(name, right) for name in (first.node, *first.through))
    return replace(outcome, localised=hit, named=first.node)


def _is_one_of(name: str, right: set[str]) -> bool:
    """A node of an inlined function is called after the node that calls it."""
    return PLANTED in name or name in right or name.split("/", maxsplit=1)[0] in right


def _wanted(site: Site, graph: Path) -> set[str]:
    nodes = onnx.load(graph).graph.node
    planted_nodes = [n for n in nodes if n.name in site.nodes or n.op_type in site.nodes]
    planted_nodes += [n for n in nodes if n.name.startswith(PLANTED)]
    made = {name for node in planted_nodes for name in node.output}
    readers = [node for node in nodes if made & set(node.input)]
    return {*site.nodes, *(node.name for node in (*planted_nodes, *readers))}
