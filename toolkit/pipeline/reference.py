"""The recipe's meaning as a runner: PyTorch for every model, definitions for every ensemble."""

from __future__ import annotations

from toolkit.artifacts import OnnxModel
from toolkit.parity import OutputSpec
from toolkit.pipeline.plan import EnsemblePlan, LeafPlan, Plan
from toolkit.runtime import (
    EnsembleRunner,
    JitteredSource,
    OrtRunner,
    Renamed,
    Runner,
    TorchRunner,
    Weighted,
)
from toolkit.sources import HuggingFaceSource

__all__ = ["baseline_runners", "output_specs", "reference_runner"]


def reference_runner(plan: Plan, dtype: str) -> Runner:
    """A runner that computes the recipe in ``dtype`` without any of our graph code.

    An ONNX member means what ONNX Runtime, without optimisations, makes of its own file; it
    stays in the file's precision.
    """
    return _runner(plan.root, dtype, None)


def baseline_runners(plan: Plan, dtype: str) -> tuple[Runner, ...]:
    """Runners whose errors are healthy in ``dtype``: the recipe as it is, and moved by roundings.

    In the moved ones every PyTorch weight differs by one rounding at most (``jitter``), and ONNX
    members run with ONNX Runtime's optimisations.
    """
    return tuple(_runner(plan.root, dtype, seed) for seed in (None, 1, 2))


def _runner(node: LeafPlan | EnsemblePlan, dtype: str, jitter: int | None) -> Runner:
    runner = _own_names(node, dtype, jitter)
    return Renamed(runner, node.rename) if node.rename else runner


def _own_names(node: LeafPlan | EnsemblePlan, dtype: str, jitter: int | None) -> Runner:
    if isinstance(node, EnsemblePlan):
        members = [
            Weighted(_runner(member, dtype, jitter), weight)
            for member, weight in zip(node.members, node.weights, strict=True)
        ]
        return EnsembleRunner(members, node.combine, node.space, node.output)
    if isinstance(node.origin, OnnxModel):
        return OrtRunner(node.origin.path, optimise=jitter is not None)
    if jitter is None:
        return TorchRunner(node.origin, dtype)
    return TorchRunner(JitteredSource(node.origin, jitter), dtype)


def output_specs(plan: Plan) -> tuple[OutputSpec, ...]:
    """What to compare, and which outputs are distributions."""
    root = plan.root
    if isinstance(root, EnsemblePlan):
        return (OutputSpec(root.output, root.space),)
    token_model = isinstance(root.origin, HuggingFaceSource)
    return tuple(
        OutputSpec(name, "logits" if token_model and name == "logits" else "values")
        for name in root.outputs
    )
