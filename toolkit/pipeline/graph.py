"""From a plan to its graph: export every model, fuse, rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import graphs
from toolkit.artifacts import OnnxModel
from toolkit.export import ExportOptions, export_source
from toolkit.pipeline.experts import LOWERINGS, expert_passes
from toolkit.pipeline.plan import GroupPlan, LeafPlan, Node, Plan, StackPlan
from toolkit.progress import Progress

__all__ = ["asked_passes", "export_leaves", "fuse_leaves", "graph_tree", "is_asked"]

_UNASKED = {graphs.FindGating.name, *(step.name for step in LOWERINGS.values())}


def export_leaves(
    plan: Plan,
    work: Path,
    progress: Progress,
    traced: Callable[[str, LeafPlan, object], None] | None = None,
) -> dict[str, Path]:
    """Write every model of the plan as ONNX under ``work``, one in memory at a time.

    Args:
        plan: The plan.
        work: An empty folder.
        progress: Told of every model.
        traced: Given the path of each PyTorch model in the ensemble, its plan, and the
            ``torch.export.ExportedProgram`` that was translated.

    Returns:
        The file of each model by its path in the ensemble; for ONNX members their own file.
    """
    exported: dict[str, Path] = {}
    leaves = list(plan.leaves())
    for done, (name, leaf) in enumerate(leaves):
        progress("export models", done, len(leaves))
        exported[name] = _export(name, leaf, plan, work / str(done), traced)
    progress("export models", len(leaves), len(leaves))
    return exported


def asked_passes(plan: Plan) -> tuple[graphs.Pass, ...]:
    """Routers are found, then come the passes of the recipe in its order, mixed precision, experts.

    Layers of experts are looked for before their routers, if the recipe says so. Gates stay in
    float32: they are small, and decide between members. Experts come last, because mixed precision
    leaves what stands in conditionals alone.
    """
    named = tuple(graphs.PASSES[step.name](**step.options()) for step in plan.recipe.passes)
    first = [step for step in named if step.name == graphs.FindMoeBlocks.name]
    rest = [step for step in named if step.name != graphs.FindMoeBlocks.name]
    return (*first, graphs.FindGating(), *rest, *_mixed(plan), *expert_passes(plan))


def is_asked(plan: Plan, step: graphs.Pass) -> bool:
    """Whether a pass has to rewrite something: those that a recipe names, and mixed precision."""
    named = {each.name for each in plan.recipe.passes}
    return step.name in named or step.name == graphs.MixedPrecision.name


def _mixed(plan: Plan) -> tuple[graphs.Pass, ...]:
    export = plan.recipe.export
    if export.arithmetic == "float32" or not export.mixed:
        return ()
    gates = [f"{name}/*" for name, leaf in plan.leaves() if leaf.gates]
    kept = (*export.keep_float32, *gates)
    return (graphs.MixedPrecision(export.arithmetic, kept, export.io),)


def fuse_leaves(
    plan: Plan, exported: Mapping[str, Path], out: Path, passes: Sequence[graphs.Pass]
) -> list[graphs.PassReport]:
    """Write the fused graph, stripped of the exporter's traces, after ``passes``.

    Returns:
        What every pass did, those that fusing runs included.

    Raises:
        graphs.GraphError: If members cannot be fused, or a pass that the recipe names, or its
            mixed precision, rewrites nothing.
    """
    required = [step.name for step in passes if is_asked(plan, step)]
    every = (graphs.StripExporterMetadata(), *passes)
    tree = graph_tree(plan.root, "", exported)
    reports = graphs.fuse(tree, out, passes=every, required=required)
    # What looks for experts in every graph is worth a line where there were some.
    return [
        r for r in reports if r.sites or r.near_misses or r.name not in _UNASKED - set(required)
    ]


def _export(
    name: str,
    leaf: LeafPlan,
    plan: Plan,
    folder: Path,
    traced: Callable[[str, LeafPlan, object], None] | None,
) -> Path:
    if isinstance(leaf.origin, OnnxModel):
        return leaf.origin.path
    folder.mkdir()
    wanted = plan.recipe.export
    precision = "float32" if leaf.gates else wanted.exported
    options = ExportOptions(opset=wanted.opset, precision=precision)
    seen = None if traced is None else lambda program: traced(name, leaf, program)
    return export_source(leaf.origin, plan.shapes, options, folder / "model.onnx", seen).path


def graph_tree(node: Node, prefix: str, exported: Mapping[str, Path]) -> graphs.Tree:
    """The plan as ``graphs`` wants it, with files for sources."""
    if isinstance(node, LeafPlan):
        said = node.translation
        tables = None
        if said is not None:
            tables = graphs.Translation(said.ids, said.logits, said.reads, said.speaks)
        file = exported[prefix + node.name]
        return graphs.Leaf(node.name, file, node.rename, node.caches, tables)
    parts = [
        graph_tree(m, f"{prefix}{m.name}/" if not isinstance(m, LeafPlan) else prefix, exported)
        for m in node.parts
    ]
    if isinstance(node, StackPlan):
        feeds = {name: graphs.Feed(feed.stage, feed.output) for name, feed in node.feeds.items()}
        return graphs.Stack(node.name, tuple(parts), feeds, node.rename)
    if isinstance(node, GroupPlan):
        return graphs.Group(node.name, tuple(parts), node.rename)
    how = graphs.Combination(node.combine, node.space, node.weights, node.output)
    gate = None
    if node.gate is not None:
        rule = node.gate.rule
        gate = graphs.Gate(parts.pop(), rule.output, rule.top_k, rule.activation)
    return graphs.Ensemble(node.name, tuple(parts), how, node.rename, gate)
