"""Low precision: the float graph is proven as ever, the quantised one by a budget of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from toolkit.bundle import QuantisationRecord
from toolkit.errors import RecipeError
from toolkit.feeds import Case, real_cases
from toolkit.parity import (
    ParityOptions,
    ParityReport,
    QuantisedBudget,
    joined,
    prove,
    prove_quantised,
)
from toolkit.pipeline.halves import float_structure
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases, recorded, tokenizer_of
from toolkit.pipeline.reference import output_specs, reference_runner
from toolkit.pipeline.runtimes import candidate_runners, graph_runtime
from toolkit.pipeline.watched import Watching
from toolkit.progress import Progress
from toolkit.quantise import QuantiseOptions, quantise
from toolkit.runtime import Feeds, OrtRunner, RuntimeName

__all__ = ["low_precision_report", "quantise_graph"]

_CALIBRATED = {"int8", "fp8"}
_MOST_CASES = 128


def quantise_graph(plan: Plan, graph: Path, progress: Progress) -> QuantisationRecord | None:
    """Quantise ``graph`` in place, as the recipe says; None where it says float.

    Raises:
        RecipeError: If ranges of activations are needed and there are no real inputs.
        CapabilityError: If the quantiser is not installed.
        ExportError: If it quantises nothing.
    """
    export = plan.recipe.export
    low = export.low
    if low is None:
        return None
    gates = [f"{name}/*" for name, leaf in plan.leaves() if leaf.gates]
    options = QuantiseOptions(
        precision=low,
        tensorrt=plan.recipe.target != "onnx",
        keep=(*export.keep_float32, *gates),
    )
    cases = _calibration(plan) if low in _CALIBRATED else ()
    progress("quantise", 0, 1)
    found = quantise(graph, graph, options, _feeds(cases, graph))
    progress("quantise", 1, 1)
    return QuantisationRecord(
        precision=low,
        quantiser=found.quantiser,
        calibration=_said(plan, len(cases)) if cases else "none",
        nodes=found.nodes,
        kept=found.kept,
        bytes_before=found.bytes_before,
        bytes_after=found.bytes_after,
    )


def _calibration(plan: Plan) -> tuple[Case, ...]:
    """Real inputs that ranges are taken from.

    Raises:
        RecipeError: If the recipe names none: ranges of random inputs mean nothing.
    """
    export = plan.recipe.export
    source = export.calibration or plan.recipe.parity.inputs
    if source is None:
        raise RecipeError(
            f"export.precision is {export.precision}, which takes the ranges of activations from "
            "real inputs, and the recipe names none",
            hint="export: {calibration: data.npz}, with an array for every input, or, for ONNX "
            "Runtime, int8_dynamic, which takes them at run time",
        )
    every = real_cases(source.path, plan.inputs, plan.shapes, tokenizer_of(plan))
    return tuple(islice(every, _MOST_CASES))


def _said(plan: Plan, count: int) -> str:
    source = plan.recipe.export.calibration or plan.recipe.parity.inputs
    return "" if source is None else f"{count} batches of {source.path.name}"


def _feeds(cases: tuple[Case, ...], graph: Path) -> Iterator[Feeds]:
    for case in cases:
        yield from recorded(case, OrtRunner(graph))


def low_precision_report(  # noqa: PLR0913, PLR0917  (as prove_plan has them)
    plan: Plan,
    graph: Path,
    exact: str,
    options: ParityOptions,
    runtime: RuntimeName,
    progress: Progress,
) -> ParityReport:
    """The proof of a quantised graph, in two parts that are told apart.

    The same plan exported in float32 is held against PyTorch in float64 by every gate, laws
    included: the computation is PyTorch's. The quantised file is held against the same reference
    by the budget of the recipe, without laws: ranges of a batch may move its rows.
    """
    budget = QuantisedBudget(**plan.recipe.parity.quantised.stated(plan.recipe.export.precision))
    cases, outputs = proof_cases(plan), output_specs(plan)
    reference = reference_runner(plan, exact)
    low = ", " + plan.recipe.export.precision
    with (
        Watching(plan) as watching,
        float_structure(plan, graph_runtime(runtime), exact, progress, watching) as structure,
    ):
        whole = prove(
            reference=reference,
            baselines=(),
            candidates=(),
            cases=cases,
            outputs=outputs,
            options=options,
            progress=progress,
            structure=structure,
        )
        runners = candidate_runners(graph, watching, runtime, label=low)
        fine = prove_quantised(
            reference,
            # ONNX Runtime optimises a ReLU in front of E4M3 away (seen up to 1.32). It is not what
            # runs such a graph.
            runners[:1] if plan.recipe.export.precision == "fp8" else runners,
            cases,
            outputs,
            options,
            budget,
            progress,
        )
    said = (
        f"{plan.recipe.export.precision} is held to a budget, not to rounding: {budget}; "
        "the exact proof is of the same graph in float32, before it was quantised"
    )
    return joined(whole, fine).with_note(said)
