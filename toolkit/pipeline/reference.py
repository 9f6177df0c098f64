"""The recipe's meaning as a runner: PyTorch for every model, definitions for every ensemble."""

from __future__ import annotations

from toolkit.artifacts import OnnxModel
from toolkit.parity import OutputSpec
from toolkit.pipeline.plan import EnsemblePlan, LeafPlan, Plan
from toolkit.runtime import (
    EnsembleRunner,
    OrtRunner,
    Renamed,
    Runner,
    TorchRunner,
    Weighted,
)
from toolkit.sources import HuggingFaceSource

__all__ = ["output_specs", "reference_runner"]


def reference_runner(plan: Plan, dtype: str) -> Runner:
    """A runner that computes the recipe in ``dtype`` without any of our graph code.

    An ONNX member means what ONNX Runtime, without optimisations, makes of its own file; it
    stays in the file's precision.
    """
    return _runner(plan.root, dtype)


def _runner(node: LeafPlan | EnsemblePlan, dtype: str) -> Runner:
    runner = _own_names(node, dtype)
    return Renamed(runner, node.rename) if node.rename else runner


def _own_names(node: LeafPlan | EnsemblePlan, dtype: str) -> Runner:
    if isinstance(node, EnsemblePlan):
        members = [
            Weighted(_runner(member, dtype), weight)
            for member, weight in zip(node.members, node.weights, strict=True)
        ]
        return EnsembleRunner(members, node.combine, node.space, node.output)
    if isinstance(node.origin, OnnxModel):
        return OrtRunner(node.origin.path, optimise=False)
    return TorchRunner(node.origin, dtype)


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
