"""How long it takes to name the node that goes wrong, the fresh export counted apart."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import onnx

from benchmarks.families import FAMILIES, Size, write_family
from benchmarks.faults import planted
from benchmarks.rows import Row
from toolkit.parity.explain import Explanation
from toolkit.pipeline.explain import explain_graph, telling_cases
from toolkit.pipeline.twin import fresh_twin

__all__ = ["run"]

BOUND = 5.0
NODES = 200
SAMPLES = 8
FAULT = "weight row scaled by 0.03 %"


def run(*, quick: bool) -> list[Row]:
    """Plant a fault in an encoder of at least 200 nodes and localise it, again and again."""
    found: list[Explanation] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = write_family(FAMILIES["encoder"], folder, 1, Size(layers=6))
        started = time.perf_counter()
        with fresh_twin(plan) as twin:
            export = time.perf_counter() - started
            graph = folder / "planted.onnx"
            site = planted(onnx.load(twin.finished), FAULT, 2, graph)
            samples = telling_cases(plan, None, SAMPLES, graph=graph)
            for _ in range(3 if quick else 7):
                started = time.perf_counter()
                found.append(explain_graph(graph, twin, samples))
                seconds.append(time.perf_counter() - started)
    named = sum(one.suspects[0].node in site.nodes for one in found if one.suspects)
    span = min(seconds), max(seconds)
    return [
        Row("nodes of the graph", float(found[0].nodes), "", floor=NODES),
        Row("values held against float64", float(found[0].values), ""),
        Row("samples", float(len(samples)), "", floor=SAMPLES),
        Row("localisation", statistics.median(seconds), "s", span, BOUND),
        Row("fresh export before it", export, "s"),
        Row("planted node named", named / len(found) * 100, "%", floor=95.0),
    ]
