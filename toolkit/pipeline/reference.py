"""The recipe's meaning as a runner: PyTorch for models, definitions for what joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from torch import nn

from toolkit.artifacts import OnnxModel
from toolkit.caches import PRESENT
from toolkit.parity import OutputSpec
from toolkit.pipeline.plan import (
    EnsemblePlan,
    GatePlan,
    GroupPlan,
    LeafPlan,
    Node,
    Plan,
    StackPlan,
)
from toolkit.pipeline.watched import member_of
from toolkit.runtime import (
    ChangedSource,
    EnsembleRunner,
    Gating,
    GroupRunner,
    NarrowedSource,
    OrtRunner,
    Renamed,
    Runner,
    StackRunner,
    TorchRunner,
    Translated,
    Weighted,
    is_large,
    jitter,
)
from toolkit.sources import FactorySource, HuggingFaceSource

__all__ = [
    "COMBINER",
    "available_memory",
    "baseline_runners",
    "narrowed_runner",
    "output_specs",
    "part_runner",
    "reference_precision",
    "reference_runner",
]

# The factory of ours whose output is a distribution.
COMBINER = "toolkit.gates:combiner"

Change = Callable[[nn.Module], None]


def reference_runner(plan: Plan, dtype: str, change: Change | None = None) -> Runner:
    """A runner that computes the recipe in ``dtype`` without any of our graph code.

    ``change`` alters every PyTorch model after it is loaded.

    An ONNX member means what ONNX Runtime, without optimisations, makes of its own file; it
    stays in the file's precision. Gates stay in float32 at least, and what float32 may decide
    otherwise in them is marked (``undecided``).
    """
    return _Making(dtype, change, probed=True, watched=plan).runner(plan.root)


def narrowed_runner(plan: Plan, precision: str, dtype: str) -> Runner:
    """A runner that computes the recipe in ``dtype`` with the weights it has in ``precision``."""
    return _Making(dtype, precision=precision, probed=True, watched=plan).runner(plan.root)


def reference_precision(plan: Plan) -> tuple[str, tuple[str, ...]]:
    """``float64`` where what runs at a time fits into memory, else ``float32``, and what to say.

    That is one model, or all of them where the proof decodes: the next step needs every member's
    word on the one before.
    """
    sizes = [_needed_in_float64(leaf) for _, leaf in plan.leaves()]
    decodes = any(name.startswith(PRESENT) for name in plan.root.outputs)
    needed = sum(sizes) if decodes else max(sizes, default=0)
    free = available_memory()
    if free is None or needed <= free:
        return "float64", ()
    whose = "the models" if decodes else "the largest model"
    note = (
        f"the reference is float32: float64 would take {needed / 1e9:.1f} GB for {whose},"
        f" and {free / 1e9:.1f} GB of memory are free"
    )
    return "float32", (note,)


def _needed_in_float64(leaf: LeafPlan) -> int:
    """Bytes: weights in float64, or in float32 where blocks of them are widened in turn.

    As much again is left for reading them, for what is being computed and for a block.
    """
    checkpoint = leaf.checkpoint()
    if checkpoint is None or isinstance(leaf.origin, OnnxModel):
        return 0
    each = 4 if is_large(leaf.origin) else 8
    return 2 * each * sum(prod(entry.shape) for _, entry in checkpoint.tensors.values())


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
    return tuple(
        _Making(dtype, change, watched=plan).runner(plan.root) for change in (*plain, *moved)
    )


def part_runner(part: Node, dtype: str = "float32") -> Runner:
    """A runner of one member of an ensemble, under the names that it shares with the others."""
    return _Making(dtype).runner(part)


@dataclass(frozen=True)
class _Making:
    """How the models of a tree become runners.

    Attributes:
        dtype: What they are computed in; gates at least in float32.
        change: Alters every PyTorch model after it is loaded.
        precision: Of the weights, whatever they are computed in; gates keep theirs.
        probed: Whether rows whose gate hangs on rounding are marked.
        watched: The plan whose models tell which experts they choose; None if nobody asks.
    """

    dtype: str
    change: Change | None = None
    precision: str | None = None
    probed: bool = False
    watched: Plan | None = None

    def runner(self, node: Node) -> Runner:
        """The runner of a model under the names it shares with others."""
        if isinstance(node, LeafPlan):
            runner = self._leaf(node)
        elif isinstance(node, GroupPlan):
            runner = GroupRunner([self.runner(member) for member in node.members])
        else:
            runner = self._stack(node) if isinstance(node, StackPlan) else self._ensemble(node)
        caches = node.caches if isinstance(node, LeafPlan) else {}
        return Renamed(runner, node.rename, caches) if node.rename or caches else runner

    def _ensemble(self, node: EnsemblePlan) -> Runner:
        weights = node.weights if node.gate is None else (0.0,) * len(node.members)
        members = [
            Weighted(self.runner(member), weight)
            for member, weight in zip(node.members, weights, strict=True)
        ]
        gate = None if node.gate is None else self._gating(node.gate)
        return EnsembleRunner(members, node.combine, node.space, node.output, gate)

    def _stack(self, node: StackPlan) -> Runner:
        places = {stage.name: place for place, stage in enumerate(node.stages)}
        feeds = {name: (places[feed.stage], feed.output) for name, feed in node.feeds.items()}
        return StackRunner([self.runner(stage) for stage in node.stages], feeds)

    def _leaf(self, node: LeafPlan) -> Runner:
        if isinstance(node.origin, OnnxModel):
            return OrtRunner(node.origin.path, optimise=self.change is not None)
        source, dtype = node.origin, self.dtype
        if self.change is not None:
            source = ChangedSource(source, self.change)
        if node.gates:
            return TorchRunner(source, dtype if dtype == "float64" else "float32")
        if self.precision is not None:
            source = NarrowedSource(source, self.precision)
        member = None if self.watched is None else member_of(self.watched, node)
        runner = TorchRunner(source, dtype, member)
        return runner if node.translation is None else Translated(runner, node.translation)

    def _gating(self, gate: GatePlan) -> Gating:
        runner = replace(self, probed=False).runner(gate.model)
        if not self.probed or gate.rule.top_k is None:
            return Gating(runner, gate.rule)
        moved = (None, *(partial(jitter, seed=seed) for seed in (1, 2)))
        probes = tuple(_Making("float32", one).runner(gate.model) for one in moved)
        return Gating(runner, gate.rule, probes)


def output_specs(plan: Plan) -> tuple[OutputSpec, ...]:
    """What to compare, and which outputs are distributions."""
    root = plan.root
    while isinstance(root, StackPlan):
        root = root.stages[-1]
    if isinstance(root, EnsemblePlan):
        caches = (OutputSpec(name) for name in root.outputs if name != root.output)
        return (OutputSpec(root.output, root.space), *caches)
    if isinstance(root, GroupPlan):
        return tuple(map(OutputSpec, root.outputs))
    origin = root.origin
    classes = isinstance(origin, HuggingFaceSource) or (
        isinstance(origin, FactorySource) and origin.target == COMBINER
    )
    return tuple(
        OutputSpec(name, "logits" if classes and name == "logits" else "values")
        for name in root.outputs
    )
