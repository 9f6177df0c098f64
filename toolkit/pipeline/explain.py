"""Why a proof fails: the bundle's graph beside a fresh export of its own recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from toolkit.bundle import Bundle, open_bundle, versions
from toolkit.feeds import Case
from toolkit.parity import ParityReport
from toolkit.parity.explain import ExplainOptions, Explanation, Twin, explain
from toolkit.pipeline.bundled import bundle_plan
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases, recorded
from toolkit.pipeline.twin import fresh_twin
from toolkit.progress import Progress, silent
from toolkit.runtime import OrtRunner, TreeTrace

__all__ = ["SAMPLES", "explain_bundle", "explain_graph", "telling_cases"]

SAMPLES = 8


def explain_bundle(
    folder: Path,
    report: ParityReport,
    progress: Progress = silent,
    *,
    allow_code: bool = False,
    root: Path | None = None,
) -> Explanation:
    """Localise what a proof of ``folder`` found.

    Args:
        folder: The bundle; its files are taken as they lie there.
        report: The proof: its worst cases are the samples.
        progress: Told of every model and every sample.
        allow_code: Whether factories may run.
        root: Where the recipe's models lie, if not where they lay at export.

    Raises:
        BundleError: If the folder is no bundle, or the folder with the models is gone.
        ToolkitError: If the recipe cannot be exported again.
    """
    bundle = open_bundle(folder, verify=False)
    plan = bundle_plan(bundle, allow_code=allow_code, root=root)
    with fresh_twin(plan, progress) as twin:
        samples = telling_cases(plan, report, graph=bundle.model)
        found = explain_graph(bundle.model, twin, samples, progress)
    return replace(found, notes=(*found.notes, *_other_versions(bundle)))


def explain_graph(
    graph: Path,
    twin: Twin,
    samples: Sequence[Case],
    progress: Progress = silent,
    options: ExplainOptions | None = None,
) -> Explanation:
    """Localise in a graph of a plan whose twin is at hand."""
    found = explain(graph, twin, samples, options, progress)
    failures = twin.truth.failures if isinstance(twin.truth, TreeTrace) else {}
    notes = [
        f"the traced program of {name} does not run in float64 ({reason}), so its values are "
        "held against the operators of the fresh export"
        for name, reason in failures.items()
    ]
    return replace(found, notes=(*found.notes, *notes))


def telling_cases(
    plan: Plan, report: ParityReport | None, count: int = SAMPLES, *, graph: Path
) -> list[Case]:
    """Cases of the proof to look into: the worst of it, filled up with the first ones.

    A case that drives the model through many steps gives its last step and one in the middle: they
    start from caches that ``graph`` made, and whatever computes a step wrongly is seen in it.
    """
    cases = proof_cases(plan)
    by_name = {case.name: case for case in cases}
    worst = [case.case for case in report.worst] if report is not None else []
    plain = [case.name for case in cases if case.drive is None]
    names = dict.fromkeys([name for name in worst if name in by_name] + plain)
    found: list[Case] = []
    for name in names:
        if len(found) >= count:
            break
        case = by_name[name]
        found += [case] if case.drive is None else _steps(case, graph)
    return found[:count]


def _steps(case: Case, graph: Path) -> list[Case]:
    feeds = recorded(case, OrtRunner(graph, optimise=False))
    chosen = sorted({len(feeds) // 2, len(feeds) - 1})
    return [
        Case(f"{case.name}, step {n + 1}", case.kind, case.dims, partial(feeds.__getitem__, n))
        for n in chosen
    ]


def _other_versions(bundle: Bundle) -> list[str]:
    recorded, here = bundle.manifest.versions, versions()
    names = [name for name in ("torch", "onnxscript") if recorded.get(name) != here.get(name)]
    return [
        f"the bundle was made with {name} {recorded.get(name)}, the fresh export with "
        f"{here.get(name)}: names and nodes may differ for that reason"
        for name in names
    ]
