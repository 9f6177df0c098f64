"""The recipe's meaning as a runner: PyTorch for every model, definitions for every ensemble."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path

from torch import nn

from toolkit.artifacts import OnnxModel
from toolkit.parity import OutputSpec
from toolkit.pipeline.plan import EnsemblePlan, LeafPlan, Plan
from toolkit.runtime import (
    ChangedSource,
    EnsembleRunner,
    NarrowedSource,
    OrtRunner,
    Renamed,
    Runner,
    TorchRunner,
    Weighted,
    jitter,
)
from toolkit.sources import HuggingFaceSource, Source

__all__ = [
    "available_memory",
    "baseline_runners",
    "narrowed_runner",
    "output_specs",
    "reference_precision",
    "reference_runner",
]


Change = Callable[[nn.Module], None]
Wrap = Callable[[Source], Source]


def reference_runner(plan: Plan, dtype: str, change: Change | None = None) -> Runner:
    """A runner that computes the recipe in ``dtype`` without any of our graph code.

    ``change`` alters every PyTorch model after it is loaded.

    An ONNX member means what ONNX Runtime, without optimisations, makes of its own file; it
    stays in the file's precision.
    """
    return _runner(plan.root, dtype, _changed(change), optimise=change is not None)


def narrowed_runner(plan: Plan, precision: str, dtype: str) -> Runner:
    """A runner that computes the recipe in ``dtype`` with the weights it has in ``precision``."""

    def narrowed(source: Source) -> Source:
        return NarrowedSource(source, precision)

    return _runner(plan.root, dtype, narrowed)


def _changed(change: Change | None) -> Wrap | None:
    return None if change is None else lambda source: ChangedSource(source, change)


def reference_precision(plan: Plan) -> tuple[str, tuple[str, ...]]:
    """``float64`` where one model at a time fits into memory, else ``float32``, and what to say.

    Weights in float64 take twice what the files take in float32 and four times what they take in
    half precision; as much again is left for reading them and for activations.
    """
    largest = max((_bytes_in_float64(leaf) for _, leaf in plan.leaves()), default=0)
    free = available_memory()
    if free is None or 2 * largest <= free:
        return "float64", ()
    note = (
        f"the reference is float32: float64 would take {2 * largest / 1e9:.1f} GB for the largest"
        f" model, and {free / 1e9:.1f} GB of memory are free"
    )
    return "float32", (note,)


def _bytes_in_float64(leaf: LeafPlan) -> int:
    checkpoint = leaf.checkpoint()
    if checkpoint is None:
        return 0
    return 8 * sum(prod(entry.shape) for _, entry in checkpoint.tensors.values())


def available_memory() -> int | None:
    """Bytes that programs can still take without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def baseline_runners(plan: Plan, dtype: str, reference: str = "float64") -> tuple[Runner, ...]:
    """Runners whose errors are healthy in ``dtype``: the recipe as it is, and moved by roundings.

    In the moved ones every PyTorch weight differs by one rounding at most (``jitter``), and ONNX
    members run with ONNX Runtime's optimisations. In half precision the run as it is suffices:
    rounding every activation leaves no sample lucky, and weights moved by a half's rounding would
    hide defects. A run in the reference's own precision has no error, so it is left out.
    """
    plain: list[Change | None] = [None] if dtype != reference else []
    moved = [partial(jitter, seed=seed) for seed in (1, 2)] if dtype == "float32" else []
    return tuple(reference_runner(plan, dtype, change) for change in (*plain, *moved))


def _runner(
    node: LeafPlan | EnsemblePlan, dtype: str, wrap: Wrap | None, *, optimise: bool = False
) -> Runner:
    runner = _own_names(node, dtype, wrap, optimise=optimise)
    return Renamed(runner, node.rename) if node.rename else runner


def _own_names(
    node: LeafPlan | EnsemblePlan, dtype: str, wrap: Wrap | None, *, optimise: bool
) -> Runner:
    if isinstance(node, EnsemblePlan):
        members = [
            Weighted(_runner(member, dtype, wrap, optimise=optimise), weight)
            for member, weight in zip(node.members, node.weights, strict=True)
        ]
        return EnsembleRunner(members, node.combine, node.space, node.output)
    if isinstance(node.origin, OnnxModel):
        return OrtRunner(node.origin.path, optimise=optimise)
    return TorchRunner(wrap(node.origin) if wrap else node.origin, dtype)


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
