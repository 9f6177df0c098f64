"""The pipeline's own proof, over and over on changed graphs of one plan.

PyTorch's answers do not depend on the graph, so they are computed once and remembered by what was
fed; everything else is the proof as ``toolkit export`` runs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import numpy_helper

from graphs import GraphError
from toolkit.artifacts import OnnxModel, TensorSpec
from toolkit.errors import ToolkitError
from toolkit.feeds import Case
from toolkit.parity import ParityReport, Structure
from toolkit.pipeline import Plan, halves, prove
from toolkit.pipeline.halves import Halves
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.prove import prove_plan
from toolkit.pipeline.reference import baseline_runners, reference_runner
from toolkit.pipeline.watched import Watching
from toolkit.progress import silent
from toolkit.runtime import Array, Feeds, OrtRunner, Outputs, Runner, choices_in

__all__ = ["Proof", "Subject", "reweighted", "weight_names"]

_HALF_ULP = 2.0**-24


class Remembering:
    """A runner that runs what it has not been fed before, and repeats its answer otherwise."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._open = ExitStack()
        self._entered: Runner | None = None
        self._answers: dict[bytes, Outputs] = {}
        self.name = runner.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The runner's inputs."""
        return self._runner.inputs

    def __enter__(self) -> Remembering:
        """The model is loaded when it is first needed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The model stays loaded for the next proof."""

    def __call__(self, feeds: Feeds) -> Outputs:
        """Answer."""
        key = digest(feeds)
        if key not in self._answers:
            self._answers[key] = self.open()(feeds)
        return self._answers[key]

    def open(self) -> Runner:
        """Load the model, if it is not loaded yet."""
        if self._entered is None:
            self._entered = self._open.enter_context(self._runner)
        return self._entered


class Keeping(OrtRunner):
    """ONNX Runtime on one thread, which keeps what the graph as it is answered."""

    def __init__(self, path: Path, *, kept: dict[bytes, Outputs], optimise: bool = True) -> None:
        super().__init__(path, optimise=optimise, threads=1)
        self._kept = None if optimise else kept

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run."""
        found = super().__call__(feeds)
        if self._kept is not None:
            self._kept[digest(feeds)] = found
        return found


def digest(feeds: Feeds) -> bytes:
    """What tells one set of inputs from another."""
    found = hashlib.sha1(usedforsecurity=False)
    for name in sorted(feeds):
        array = np.ascontiguousarray(feeds[name])
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.digest()


@dataclass(frozen=True)
class Proof:
    """What the proof says of a graph.

    Attributes:
        report: The proof; None where the graph could not even be run or read.
        refusal: Why not.
        answers: What the graph answered, unoptimised, to everything it was fed.
    """

    report: ParityReport | None
    refusal: str
    answers: dict[bytes, Outputs]

    @property
    def passed(self) -> bool:
        """Whether the graph would be shipped."""
        return self.report is not None and self.report.passed

    @property
    def reason(self) -> str:
        """The gates that fail, or how near the nearest gate is."""
        if self.report is None:
            return self.refusal
        checks = [check for verdict in self.report.verdicts for check in verdict.checks]
        if not self.report.passed:
            return ", ".join(dict.fromkeys(c.gate for c in checks if c.status == "fail"))
        nearest = max(checks, key=lambda check: check.excess)
        return f"{nearest.gate} at {nearest.excess:.2f} of its limit"


@dataclass
class Subject:
    """A plan whose PyTorch answers are remembered.

    Attributes:
        plan: What graphs should compute.
        write_whole: For half precision, writes the float32 graph of a plan, so that it need not be
            exported for every set of weights.
        cases: The proof's cases that are one run each.
    """

    plan: Plan
    write_whole: Callable[[Plan, Path], None] | None = None
    cases: tuple[Case, ...] = field(init=False)
    reference: Remembering = field(init=False)
    baselines: tuple[Remembering, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.cases = tuple(case for case in proof_cases(self.plan) if case.drive is None)
        self.reference = Remembering(reference_runner(self.plan, "float64"))
        precision = self.plan.recipe.export.precision
        self.baselines = tuple(map(Remembering, baseline_runners(self.plan, precision)))

    def prove(self, graph: Path) -> Proof:
        """Run ``toolkit``'s proof on a graph."""
        kept: dict[bytes, Outputs] = {}
        halves = self.halves
        runners = Keeping(graph, kept=kept, optimise=False), Keeping(graph, kept=kept)
        # A remark on the plan, measured in PyTorch: no gate, and the same for every graph.
        remark = patch.object(prove, "detection_floor", lambda *_: 0.0)
        with (
            remark,
            patch.multiple(
                prove,
                reference_runner=lambda *_: self.reference,
                baseline_runners=lambda *_: self.baselines,
                candidate_runners=lambda *_: runners,
                half_precision=lambda *_: nullcontext(halves),
            ),
        ):
            try:
                return Proof(prove_plan(self.plan, graph), "", kept)
            except (ToolkitError, GraphError) as error:
                return Proof(None, error.message, kept)

    @cached_property
    def halves(self) -> Halves | None:
        """For half precision, what takes part beside the graph that ships: no fault is in it."""
        with (
            _graphs_by(self.write_whole),
            Watching(self.plan) as watching,
            halves.half_precision(self.plan, "cpu", "float64", silent, watching) as found,
        ):
            if found is None:
                return None
            own = found.structure
            structure = Structure(
                *(tuple(map(Remembering, side)) for side in (own.baselines, own.candidates))
            )
            baseline = Remembering(found.baseline)
            for runner in (*map(_remembering, structure.candidates), baseline):
                runner.open()  # its file lives as long as this context
            return Halves(structure, Remembering(found.reference), baseline)

    def change(self, healthy: Proof, faulty: Proof) -> float:
        """The largest change of any output in any case, in units of PyTorch's own error.

        Both are root mean squares relative to the output's scale. The unit is PyTorch's error (in
        the precision of the graph, against float64) in that case or over all cases, whichever is
        larger, and at least half a unit in the last place of float32. Infinite where the graph
        did not run, or gave another shape or NaN where it should not.
        """
        largest = 0.0
        for case, units in zip(self.cases, self._units(), strict=True):
            key = digest(case.feeds())
            if key not in faulty.answers:
                return float("inf")
            before, after = (case.finish(one.answers[key]) for one in (healthy, faulty))
            for name, (unit, scale) in units.items():
                largest = max(largest, _difference(before[name], after[name]) / scale / unit)
        return largest

    def _units(self) -> list[dict[str, tuple[float, float]]]:
        """For each case and output, the unit of change and the output's scale."""
        errors: list[dict[str, tuple[float, float]]] = []
        for case in self.cases:
            right, own = (case.run(runner) for runner in (self.reference, self.baselines[0]))
            right = {name: right[name] for name in right.keys() - choices_in(right)}
            scales = {name: _rms(value) or 1.0 for name, value in right.items()}
            errors.append(
                {n: (_difference(right[n], own[n]) / scales[n], scales[n]) for n in right}
            )
        pooled = {
            name: max(_HALF_ULP, float(np.sqrt(np.mean([e[name][0] ** 2 for e in errors]))))
            for name in errors[0]
        }
        return [
            {name: (max(error, pooled[name]), scale) for name, (error, scale) in one.items()}
            for one in errors
        ]


def _graphs_by(write: Callable[[Plan, Path], None] | None) -> AbstractContextManager[Any]:
    """Let ``write`` take the place of the proof's own export."""
    if write is None:
        return nullcontext()
    return patch.multiple(
        halves,
        export_leaves=lambda *_: {},
        fuse_leaves=lambda plan, _exported, out, _passes: write(plan, out),
    )


def _remembering(runner: Runner) -> Remembering:
    assert isinstance(runner, Remembering)
    return runner


def _rms(value: Array) -> float:
    finite = np.asarray(value, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def _difference(one: Array, two: Array) -> float:
    """Root mean square; infinite where shapes or what is finite differ."""
    if one.shape != two.shape:
        return float("inf")
    a, b = (np.asarray(value, np.float64) for value in (one, two))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    finite = np.isfinite(a)
    return float(np.sqrt(np.mean((a[finite] - b[finite]) ** 2))) if finite.any() else 0.0


def weight_names(plan: Plan, graph: onnx.ModelProto) -> dict[str, tuple[int, str, bool]]:
    """Which initializer is which model's weight: (model, name in its state dict, transposed).

    Found by value, since the exporter names and turns weights as it likes. Constants that are no
    weights are not listed.
    """
    known: dict[bytes, tuple[int, str, bool]] = {}
    for index, state in enumerate(_states(plan)):
        for name, value in state.items():
            known[_content(value.T)] = index, name, True
            known[_content(value)] = index, name, False
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    found = {name: known.get(_content(array)) for name, array in arrays.items() if array.size > 1}
    return {name: match for name, match in found.items() if match is not None}


def reweighted(
    graph: onnx.ModelProto, names: dict[str, tuple[int, str, bool]], plan: Plan, out: Path
) -> None:
    """Write the graph with the weights of another plan of the same shape."""
    changed, states = onnx.ModelProto(), _states(plan)
    changed.CopyFrom(graph)
    for tensor in changed.graph.initializer:
        if tensor.name in names:
            index, name, turned = names[tensor.name]
            value = states[index][name].T if turned else states[index][name]
            array = np.ascontiguousarray(value)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(changed, out)


def _states(plan: Plan) -> Sequence[dict[str, Array]]:
    found = []
    for _, leaf in plan.leaves():
        assert not isinstance(leaf.origin, OnnxModel)
        module = leaf.origin.load(plan.recipe.export.precision)
        found.append({name: value.numpy() for name, value in module.state_dict().items()})
    return found


def _content(value: Array) -> bytes:
    return f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
