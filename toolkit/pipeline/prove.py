"""The proof of a plan's graph, at export time and again later."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.bundle import Bundle, open_bundle
from toolkit.errors import BundleError
from toolkit.feeds import cases
from toolkit.parity import ParityOptions, ParityReport, prove
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.reference import baseline_runners, output_specs, reference_runner
from toolkit.progress import Progress, silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

__all__ = ["models_root", "prove_bundle", "prove_plan"]


def prove_plan(plan: Plan, graph: Path, progress: Progress = silent) -> ParityReport:
    """Hold a graph, with and without ONNX Runtime's optimisations, against the plan's meaning."""
    recipe = plan.recipe
    return prove(
        reference=reference_runner(plan, "float64"),
        baselines=baseline_runners(plan, recipe.export.precision),
        candidates=[OrtRunner(graph, optimise=False), OrtRunner(graph)],
        cases=cases(plan.inputs, plan.shapes, seed=recipe.parity_seed, count=recipe.parity.cases),
        outputs=output_specs(plan),
        options=ParityOptions(inputs=plan.inputs, precision=recipe.export.precision),
        progress=lambda what, done, total: progress(f"prove: {what}", done, total),
    )


def prove_bundle(
    folder: Path,
    progress: Progress = silent,
    *,
    allow_code: bool = False,
    as_is: bool = False,
    root: Path | None = None,
) -> ParityReport:
    """Prove a bundle again, from its own recipe.

    Args:
        folder: The bundle.
        progress: Told of every case.
        allow_code: Whether factories may run.
        as_is: Judge the files that lie there, even where the manifest records others.
        root: Where the recipe's models lie, if not where they lay at export.

    Raises:
        IntegrityError: If files differ from the manifest and ``as_is`` is off.
        BundleError: If the folder with the models is gone.
    """
    bundle = open_bundle(folder, verify=not as_is)
    place = root or models_root(bundle)
    recipe = load_recipe(folder / "recipe.yaml", allow_code=allow_code, root=place)
    return prove_plan(make_plan(recipe, place), bundle.model, progress)


def models_root(bundle: Bundle) -> Path:
    """The folder the recipe's paths start from, found relative to the bundle.

    Raises:
        BundleError: If it is not there.
    """
    root = Path(os.path.normpath(bundle.folder.resolve() / bundle.manifest.root))
    if not root.is_dir():
        raise BundleError(
            f"the models of {bundle.folder} lay in {bundle.manifest.root} beside it, "
            "which is not there",
            hint="tell where they are now with --root DIR",
        )
    return root
