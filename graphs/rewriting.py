"""Apply passes to a model on disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.errors import GraphError
from graphs.passes.base import Pass, PassReport

__all__ = ["apply_passes", "rewrite"]


def rewrite(
    src: Path, passes: Sequence[Pass], out: Path, *, required: Collection[str] = ()
) -> list[PassReport]:
    """Read ``src``, apply ``passes`` in order and write ``out`` and ``out.name + ".data"``.

    ``out`` may be ``src``: files are replaced when the new ones are complete.

    Args:
        src: The model to read.
        passes: Applied in this order; the graph is sorted after each.
        out: The model to write.
        required: Names of passes that must rewrite something, as those a user asked for; where
            several have one name, one of them.

    Raises:
        GraphError: If a pass cannot work on the graph, a required pass rewrote nothing, or the
            files cannot be read or written.
    """
    model = store.load(src)
    reports = apply_passes(model, passes, required)
    model.ir_version = store.IR_VERSION
    store.save(model, out)
    return reports


def apply_passes(
    model: ir.Model, passes: Sequence[Pass], required: Collection[str] = ()
) -> list[PassReport]:
    """Apply passes to a model in memory; see ``rewrite``."""
    absent = sorted(set(required) - {step.name for step in passes})
    if absent:
        raise GraphError(f"pass {absent[0]!r} is required but not among the passes to apply")
    reports: list[PassReport] = []
    for step in passes:
        step.requires(model)
        report = step.apply(model)
        model.graph.sort()
        step.ensures(model)
        reports.append(report)
        # What a pass of that name did before, as when fusing, need not be left to do again.
        if step.name in required and not any(r.sites for r in reports if r.name == step.name):
            raise _no_op(report)
    return reports


def _no_op(report: PassReport) -> GraphError:
    misses = [f"{miss.node}: {miss.reason}" for miss in report.near_misses]
    return GraphError(
        f"pass {report.name!r} was asked for and rewrote nothing",
        hint="nearest misses: " + "; ".join(misses[:3]) if misses else "remove it from the passes",
    )
