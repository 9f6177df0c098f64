"""The members of a bundle, exported again from its recipe, as models of their own for a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import graphs
from toolkit.bundle import Bundle, open_bundle
from toolkit.caches import is_cache
from toolkit.errors import PackageError
from toolkit.package import Packaged, PackageOptions, Step, package_steps
from toolkit.pipeline.bundled import bundle_plan, check_unchanged
from toolkit.pipeline.experts import settle_experts
from toolkit.pipeline.graph import asked_passes, export_leaves, graph_tree
from toolkit.pipeline.plan import EnsemblePlan, Node, Plan, StackPlan
from toolkit.progress import Progress, silent

__all__ = ["package_apart"]

# What makes one graph of several has nothing to do in a graph of one.
_OF_ENSEMBLES = {graphs.SkipGatedMembers.name}


def package_apart(  # noqa: PLR0913  (each is a different thing a user may say)
    folder: Path,
    out: Path,
    options: PackageOptions | None = None,
    progress: Progress = silent,
    *,
    allow_code: bool = False,
    root: Path | None = None,
) -> Packaged:
    """Add the bundle's members to a repository, and Triton's ensemble ``NAME_unfused`` of them.

    Args:
        folder: The bundle. Its models must lie where they lay at export, unchanged.
        out: The repository.
        options: How they are served.
        progress: Told of every model that is exported.
        allow_code: Whether factories may run.
        root: Where the recipe's models lie, if not where they lay at export.

    Raises:
        BundleError: If its models are gone or have changed.
        PackageError: If it is one model, or cannot be taken apart.
    """
    bundle = open_bundle(folder)
    plan = bundle_plan(bundle, allow_code=allow_code, root=root)
    _check(bundle, plan)
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "models").mkdir()
        exported = export_leaves(plan, work / "models", progress)
        plan, _ = settle_experts(plan, exported.values(), progress)
        steps = _steps(plan, exported, work)
        return package_steps(bundle, steps, out, options)


def _check(bundle: Bundle, plan: Plan) -> None:
    if not isinstance(plan.root, EnsemblePlan | StackPlan):
        raise PackageError(
            f"{bundle.folder} is not made of members that are combined, so there is nothing to"
            " take apart",
            hint="leave --unfused out",
        )
    if plan.recipe.export.mixed:
        raise PackageError(
            "mixed precision is chosen over the fused graph, so members of their own would differ",
            hint="leave --unfused out, or export in one precision",
        )
    check_unchanged(bundle, plan)


def _steps(plan: Plan, exported: Mapping[str, Path], work: Path) -> list[Step]:
    root = plan.root
    assert isinstance(root, EnsemblePlan | StackPlan)
    fed = {}
    if isinstance(root, StackPlan):
        fed = {name: f"{feed.stage}.{feed.output}" for name, feed in root.feeds.items()}
    steps: list[Step] = []
    given: dict[str, graphs.TensorInfo] = {}
    for number, part in enumerate(root.parts):
        path = work / f"part{number}" / "model.onnx"
        path.parent.mkdir()
        _write_part(plan, part, exported, path)
        found = graphs.describe(path)
        names = {**root.rename, **fed}
        inputs = {tensor.name: names.get(tensor.name, tensor.name) for tensor in found.inputs}
        last = isinstance(root, StackPlan) and part is root.parts[-1]
        outputs = {}
        for tensor in found.outputs:
            name = f"{part.name}.{tensor.name}"
            kept = last or is_cache(tensor.name)
            outputs[tensor.name] = tensor.name if kept else name
            given[name] = tensor
        steps.append(Step(part.name, path, inputs, outputs))
    if isinstance(root, EnsemblePlan):
        steps.append(_combining(root, plan, exported, given, work))
    used = {name for step in steps for name in step.inputs.values()}
    return [_without_unused(step, used, plan) for step in steps]


def _write_part(plan: Plan, part: Node, exported: Mapping[str, Path], out: Path) -> None:
    """One member as a graph, with the passes that the recipe asks for, where they apply."""
    passes = [step for step in asked_passes(plan) if step.name not in _OF_ENSEMBLES]
    tree = graph_tree(plan.root, "", exported)
    assert isinstance(tree, graphs.Ensemble | graphs.Stack)
    parts = [*tree.stages] if isinstance(tree, graphs.Stack) else [*tree.members]
    if isinstance(tree, graphs.Ensemble) and tree.gate is not None:
        parts.append(tree.gate.model)
    chosen = next(each for each in parts if each.name == part.name)
    if isinstance(chosen, graphs.Leaf) and chosen.keep:
        # Its caches have the names that they have beside other members.
        assert isinstance(plan.root, EnsemblePlan)
        kept = {**chosen.keep, plan.root.output: plan.root.output}
        chosen = graphs.Group(part.name, (replace(chosen, keep=kept),))
    graphs.fuse(chosen, out, passes=(graphs.StripExporterMetadata(), *passes))


def _combining(
    root: EnsemblePlan,
    plan: Plan,
    exported: Mapping[str, Path],
    given: Mapping[str, graphs.TensorInfo],
    work: Path,
) -> Step:
    """What the fused graph does with its members' outputs, as a graph of its own."""
    tree = graph_tree(plan.root, "", exported)
    assert isinstance(tree, graphs.Ensemble)
    taken = {member.name: root.output for member in root.members}
    if root.gate is not None:
        taken[root.gate.model.name] = root.gate.rule.output
    path = work / "combine" / "model.onnx"
    path.parent.mkdir()
    outputs = {name: given[f"{name}.{output}"] for name, output in taken.items()}
    graphs.write_combination(tree, outputs, path)
    inputs = {name: f"{name}.{output}" for name, output in taken.items()}
    return Step("combine", path, inputs, {root.output: root.output})


def _without_unused(step: Step, used: set[str], plan: Plan) -> Step:
    """Triton refuses tensors of an ensemble that nothing takes."""
    kept = {*used, *plan.root.outputs}
    outputs = {own: name for own, name in step.outputs.items() if name in kept}
    return Step(step.name, step.graph, step.inputs, outputs)
