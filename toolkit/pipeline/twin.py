"""A fresh export of a plan, with PyTorch's own values beside it: what a graph is explained by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import graphs
from toolkit.parity.explain import Twin
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.pipeline.plan import GroupPlan, LeafPlan, Node, Plan, StackPlan
from toolkit.progress import Progress, silent
from toolkit.runtime import (
    ProgramTrace,
    Traced,
    TracedEnsemble,
    TracedGate,
    TracedGroup,
    TracedLeaf,
    TracedStack,
    TreeTrace,
)

__all__ = ["fresh_twin"]


@contextmanager
def fresh_twin(plan: Plan, progress: Progress = silent) -> Iterator[Twin]:
    """Export the plan again into a temporary folder that lives as long as the context.

    The traced programs stay in memory, so this takes what the weights of all members take.
    """
    programs: dict[str, Any] = {}

    def keep(name: str, _leaf: LeafPlan, program: object) -> None:
        programs[name] = program

    with TemporaryDirectory() as folder:
        work = Path(folder)
        exported = export_leaves(plan, work, progress, keep)
        graph = work / "graph.onnx"
        fuse_leaves(plan, exported, graph, ())
        finished = graph
        if passes := asked_passes(plan):
            finished = work / "finished.onnx"
            graphs.rewrite(graph, passes, finished)
        truth, own = (
            TreeTrace(_traced(plan.root, "", programs, lifted=lifted)) for lifted in (True, False)
        )
        yield Twin(graph, finished, truth, own)


def _traced(node: Node, prefix: str, programs: Mapping[str, Any], *, lifted: bool) -> Traced:
    inputs = tuple(spec.name for spec in node.inputs)
    if isinstance(node, LeafPlan):
        program = programs.get(prefix + node.name)
        trace = program and ProgramTrace(program, inputs, node.outputs, lifted=lifted)
        return TracedLeaf(node.name, trace, inputs, node.rename, node.caches, node.translation)
    parts = [
        _traced(
            member,
            f"{prefix}{member.name}/" if not isinstance(member, LeafPlan) else prefix,
            programs,
            lifted=lifted,
        )
        for member in node.parts
    ]
    if isinstance(node, StackPlan):
        feeds = {name: (feed.stage, feed.output) for name, feed in node.feeds.items()}
        stages = tuple(parts)
        return TracedStack(node.name, stages, feeds, inputs, node.outputs, node.rename)
    if isinstance(node, GroupPlan):
        return TracedGroup(node.name, tuple(parts), inputs, node.rename)
    gate = None if node.gate is None else TracedGate(parts.pop(), node.gate.rule)
    return TracedEnsemble(
        node.name,
        tuple(parts),
        node.weights,
        node.combine,
        node.space,
        node.output,
        inputs,
        node.rename,
        gate,
    )
