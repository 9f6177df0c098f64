"""Localisation: the first node that leaves its budget while its inputs have not."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import graphs
from toolkit.errors import ParityError
from toolkit.feeds import Case
from toolkit.parity.explain.compare import Reading, Sides, read_values
from toolkit.parity.explain.frontier import Edge, frontier
from toolkit.parity.explain.results import Explanation, Finding, Suspect
from toolkit.parity.explain.traces import GraphTrace, Trace
from toolkit.progress import Progress, silent

__all__ = ["ExplainOptions", "Twin", "explain"]

# The modules that a source and the exporter put around the model are not the user's.
_SHELL = re.compile(r"^module(?:\.(?:module|model))?(?:\.|$)")
_EXPERT = re.compile(r"(?:^|\.)experts?\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class ExplainOptions:
    """How a localisation is run.

    Attributes:
        limit: The R that a healthy value may have.
        memory_bytes: For the values of one run; more values take more runs.
        most: How many suspects are reported.
    """

    limit: float = 4.0
    memory_bytes: int = 512 * 2**20
    most: int = 10


@dataclass(frozen=True)
class Twin:
    """A fresh export of the same recipe, which the graph in question should equal.

    Attributes:
        graph: Fused, before the passes that the recipe asks for: what values are held against.
        finished: After those passes: what nodes and weights are held against.
        truth: PyTorch's values in float64, if the models come from PyTorch.
        pytorch: PyTorch's values in the models' own precision: how large a healthy error is.
    """

    graph: Path
    finished: Path
    truth: Trace | None = None
    pytorch: Trace | None = None


def explain(
    shipped: Path,
    twin: Twin,
    samples: Sequence[Case],
    options: ExplainOptions | None = None,
    progress: Progress = silent,
) -> Explanation:
    """Say where ``shipped`` goes wrong.

    Every value inside is held against float64 (PyTorch's, where it has the value, otherwise an
    evaluation of the operator on PyTorch's values), and the file against a fresh export.

    Raises:
        ParityError: If there are no samples.
        GraphError: If a graph cannot be read.
    """
    if not samples:
        raise ParityError("there are no samples to explain a graph on")
    options = options or ExplainOptions()
    started = time.perf_counter()
    outline = graphs.outline(shipped)
    static = graphs.differences(shipped, twin.finished)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        truth = GraphTrace(twin.graph, work, twin.truth)
        sides = Sides(shipped, twin.graph, truth, twin.pytorch, work)
        feeds = [sample.make for sample in samples]
        found = read_values(sides, outline.nodes, feeds, options.memory_bytes, progress)
    names = [name for node in outline.nodes for name in node.outputs if name]
    readings = found.samples
    judged = {name for reading in readings for name in reading}
    return Explanation(
        suspects=tuple(_suspects(outline, readings, static, samples, options))[: options.most],
        findings=tuple(Finding(found.subject, found.detail) for found in static),
        samples=tuple(sample.name for sample in samples),
        nodes=len(outline.nodes),
        values=len(judged),
        unmatched=tuple(name for name in names if name not in judged),
        left_out=outline.hidden,
        chunks=found.chunks,
        limit=options.limit,
        seconds=time.perf_counter() - started,
        notes=(f"the graph does not run to its end: {found.reason}",) if found.reason else (),
    )


def _suspects(
    outline: graphs.Outline,
    readings: Sequence[Mapping[str, Reading]],
    static: Sequence[graphs.Difference],
    samples: Sequence[Case],
    options: ExplainOptions,
) -> Iterator[Suspect]:
    """Most samples first, then the order of computation.

    Where nothing leaves its budget, the nodes whose values changed at all are named instead: the
    error grew behind them, little by little.
    """
    for within in (False, True):
        edges: dict[str, list[tuple[int, Edge]]] = {}
        for number, reading in enumerate(readings):

            def left(
                name: str, reading: Mapping[str, Reading] = reading, within: bool = within
            ) -> bool | None:
                if name not in reading:
                    return None
                one = reading[name]
                return one.changed if within else one.ratio > options.limit

            for edge in frontier(outline.nodes, left):
                edges.setdefault(edge.node.name, []).append((number, edge))
        if edges:
            order = {node.name: place for place, node in enumerate(outline.nodes)}
            ranked = sorted(edges.values(), key=lambda es: (-len(es), order[es[0][1].node.name]))
            yield from (_suspect(found, readings, static, samples, within) for found in ranked)
            return


def _suspect(
    edges: Sequence[tuple[int, Edge]],
    readings: Sequence[Mapping[str, Reading]],
    static: Sequence[graphs.Difference],
    samples: Sequence[Case],
    within: bool,
) -> Suspect:
    number, edge = max(edges, key=lambda pair: readings[pair[0]][pair[1].value].ratio)
    reading, node = readings[number][edge.value], edge.node
    expert = _EXPERT.search(node.module)
    involved = {node.name, *(made.name for made in edge.through)}
    return Suspect(
        node=node.name,
        op=node.op,
        call=node.call,
        value=edge.value,
        member=node.member,
        expert=expert[1] if expert else "",
        module=_SHELL.sub("", node.module),
        source=node.source,
        through=tuple(made.name for made in edge.through),
        samples=len(edges),
        ratio=reading.ratio,
        within=within,
        sample=samples[number].name,
        error=reading.error.rms,
        healthy=reading.healthy,
        index=reading.error.index,
        reference=reading.error.reference,
        found=reading.error.found,
        findings=tuple(
            f"{found.subject}: {found.detail}" for found in static if involved & set(found.nodes)
        ),
    )
