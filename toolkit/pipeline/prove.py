"""The proof of a plan's graph, at export time and again later."""

from __future__ import annotations

from pathlib import Path

from toolkit.bundle import Bundle, open_bundle
from toolkit.engine import Needs, require_fit
from toolkit.errors import EngineError
from toolkit.parity import (
    Check,
    ParityOptions,
    ParityReport,
    Tolerance,
    Verdict,
    check_files,
    hash_files,
    joined,
    prove,
)
from toolkit.pipeline.bundled import bundle_plan
from toolkit.pipeline.detection import detection_floor
from toolkit.pipeline.halves import half_precision, prove_widened
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.quantised import low_precision_report
from toolkit.pipeline.reference import (
    baseline_runners,
    output_specs,
    reference_precision,
    reference_runner,
)
from toolkit.pipeline.runtimes import candidate_runners, graph_runtime, unsupported
from toolkit.pipeline.watched import Watching, is_causal
from toolkit.progress import Progress, silent
from toolkit.runtime import RuntimeName, require_runtime, runs_plans

__all__ = ["prove_bundle", "prove_plan"]


def prove_plan(
    plan: Plan,
    graph: Path,
    progress: Progress = silent,
    *,
    runtime: RuntimeName = "cpu",
    seconds: float | None = None,
) -> ParityReport:
    """Hold a graph, without and with the runtime's optimisations, against the plan's meaning.

    Args:
        plan: What the graph should compute.
        graph: The ONNX file.
        progress: Told of every case.
        runtime: What runs the graph.
        seconds: Time for the proof; the recipe's budget if None.

    Raises:
        CapabilityError: If this machine lacks the runtime.
        RecipeError: If the recipe's real inputs do not fit.
    """
    recipe, precision = plan.recipe, plan.recipe.export.arithmetic
    require_runtime(runtime)
    static = check_files(graph, plan.inputs)
    exact, notes = reference_precision(plan)
    lacking, runs = unsupported(precision, runtime), graph_runtime(runtime)
    options = _options(plan, notes, seconds)

    def told(what: str, done: int, total: int) -> None:
        progress(f"prove: {what}", done, total)

    if recipe.export.low is not None:
        report = low_precision_report(plan, graph, exact, options, runtime, told)
        return report.with_files(static, hash_files(graph))
    with (
        Watching(plan) as watching,
        half_precision(plan, runs, exact, progress, watching) as halves,
    ):
        report = prove(
            reference=reference_runner(plan, exact),
            baselines=baseline_runners(plan, precision, exact),
            candidates=() if lacking else candidate_runners(graph, watching, runtime),
            cases=proof_cases(plan),
            outputs=output_specs(plan),
            options=options,
            progress=told,
            structure=halves.structure if halves else None,
        )
        if halves:
            widened = prove_widened(plan, graph, halves, options, runs, told, watching)
            report = joined(report, widened).with_note(_floor(plan, exact, widened))
    if watching.hidden:
        names = ", ".join(watching.hidden)
        report = report.with_note(f"the routing of experts was not observed in {names}")
    report = _without_run(report, precision, lacking) if lacking else report
    return report.with_files(static, hash_files(graph))


def _options(plan: Plan, notes: tuple[str, ...], seconds: float | None) -> ParityOptions:
    parity = plan.recipe.parity
    return ParityOptions(
        tolerance=Tolerance().tightened(**parity.tolerance.stated()),
        precision=plan.recipe.export.arithmetic,
        seconds=parity.budget if seconds is None else seconds,
        inputs=plan.inputs,
        notes=notes,
        causal=is_causal(plan),
    )


def _without_run(report: ParityReport, precision: str, lacking: str) -> ParityReport:
    """The report of a graph that nothing here can run."""
    check = Check("G2", "budget rms", "not run", 0.0, 0.0, "", lacking)
    report = report.with_verdict(Verdict(f"{precision} graph", "", "values", (check,)))
    return report.with_note(f"{precision} was not run: {lacking}")


def _floor(plan: Plan, exact: str, widened: ParityReport) -> str:
    """The detection floor, in words."""
    name = output_specs(plan)[0].name
    rows = [row for row in widened.classes if row.output == name and row.rms_limit is not None]
    floor = detection_floor(plan, exact, max(row.rms_limit or 0.0 for row in rows))
    return (
        f"detection floor of {plan.recipe.export.precision}: a weight matrix scaled by less than"
        f" about {100 * floor:.2g} % is not seen; the computation itself is proven in float32"
    )


def prove_bundle(  # noqa: PLR0913  (each is an option of the command)
    folder: Path,
    progress: Progress = silent,
    *,
    allow_code: bool = False,
    as_is: bool = False,
    root: Path | None = None,
    runtime: RuntimeName = "cpu",
    seconds: float | None = None,
) -> ParityReport:
    """Prove a bundle again, from its own recipe.

    Args:
        folder: The bundle.
        progress: Told of every case.
        allow_code: Whether factories may run.
        as_is: Judge the files that lie there, even where the manifest records others.
        root: Where the recipe's models lie, if not where they lay at export.
        runtime: What runs the graph.
        seconds: Time for the proof; the recipe's budget if None.

    Raises:
        CapabilityError: If this machine lacks the runtime, or an engine is for another version or
            GPU.
        IntegrityError: If files differ from the manifest and ``as_is`` is off.
        BundleError: If the folder with the models is gone.
        EngineError: If an engine is to be run that the bundle does not hold.
    """
    require_runtime(runtime)
    bundle = open_bundle(folder, verify=not as_is)
    if runs_plans(runtime):
        _check_engine(bundle, runtime)
    plan = bundle_plan(bundle, allow_code=allow_code, root=root)
    return prove_plan(plan, bundle.model, progress, runtime=runtime, seconds=seconds)


def _check_engine(bundle: Bundle, runtime: RuntimeName) -> None:
    engine = bundle.manifest.engine
    if engine is None or engine.flavour != runtime:
        found = "no engine" if engine is None else f"an engine of {engine.flavour}"
        raise EngineError(
            f"{bundle.folder} holds {found}, wanted one of {runtime}",
            hint=f"toolkit build {bundle.folder} --target {runtime}",
        )
    # Asked before TensorRT is given the plan, whose answer to another version is an error at best.
    require_fit(Needs.of(engine, bundle.folder), f"the engine of {bundle.folder}")
