"""New weights in a finished bundle: put in place of the old ones, and proven again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphs import PassReport
from toolkit.artifacts import DimRange, Engine, OnnxModel
from toolkit.bundle import Bundle, Manifest, hash_file, is_bundle, open_bundle, publishing
from toolkit.checkpoint import check_finite
from toolkit.engine import refit_engine, require_refit
from toolkit.errors import BundleError, CapabilityError, RefitError
from toolkit.parity import ParityReport
from toolkit.pipeline.bundled import bundle_plan, models_root
from toolkit.pipeline.export import Outcome, export_recipe
from toolkit.pipeline.plan import LeafPlan, Plan, make_plan
from toolkit.pipeline.prove import prove_plan
from toolkit.pipeline.replacing import is_recipe, with_checkpoint, with_recipe
from toolkit.pipeline.sameness import require_same
from toolkit.pipeline.tokenizer import copy_tokenizer
from toolkit.pipeline.writing import write_record
from toolkit.progress import Progress, silent
from toolkit.refit import AGAIN, Leaf, Refit, refit_graph

__all__ = ["RefitOptions", "refit_bundle"]


@dataclass(frozen=True)
class RefitOptions:
    """What to refit with.

    Attributes:
        weights: A recipe, a model folder, or for a factory a safetensors file.
        member: The model that a checkpoint is for, where there are several.
        allow_code: Whether factories may run.
        root: Where the bundle's models lie, if not where they lay at export.
        reexport: Whether to export afresh what cannot be refitted.
    """

    weights: Path
    member: str | None = None
    allow_code: bool = False
    root: Path | None = None
    reexport: bool = False


def refit_bundle(
    folder: Path, options: RefitOptions, out: Path, progress: Progress = silent
) -> tuple[Outcome, Refit | None]:
    """Publish at ``out`` the bundle at ``folder`` with new weights, whole or not at all.

    The graph keeps every node; of its weights those change that have changed. The result is proven
    against the new weights in PyTorch; after a failed proof what was made lies in
    ``<out>.failed``, as after an export. An engine is refitted where this machine can, and left out
    where it cannot: the outcome says what is left.

    Args:
        folder: The bundle, whose old weights must still be where they were.
        options: What to refit with.
        out: Where to publish; ``folder`` itself is replaced in one step.
        progress: Told of every stage.

    Returns:
        What was made, and what was replaced; None for the latter where it was exported afresh.

    Raises:
        RefitError: If the new weights are of another recipe, or a tensor cannot be found in the
            graph, or equal ones part.
        CapabilityError: If ``folder`` itself is to be replaced, and its engine cannot be refitted.
        ToolkitError: Whatever stage fails says what it found; nothing is left behind.
    """
    bundle = open_bundle(folder)
    if bundle.manifest.verdict != "passed":
        raise BundleError(
            f"the proof of {folder} failed, wanted a bundle that passed",
            hint="toolkit parity --explain names what goes wrong",
        )
    engine = _old_engine(bundle)
    if engine is not None and out.resolve() == folder.resolve():
        _require(engine)
    old = bundle_plan(bundle, allow_code=options.allow_code, root=options.root)
    new = _new_plan(bundle, old, options)
    try:
        _check_kind(bundle)
        _check_sources(bundle, old)
        require_same(old, new)
        return _refitted(bundle, old, new, out, options, progress)
    except RefitError as error:
        if not options.reexport:
            raise
        progress(f"export afresh: {error.message}", 0, 0)
        return export_recipe(new.recipe, new.folder, out, progress), None


def _new_plan(bundle: Bundle, old: Plan, options: RefitOptions) -> Plan:
    path, code = options.weights, options.allow_code
    if is_recipe(path):
        if options.member is not None:
            raise RefitError(f"found a recipe and --member {options.member}, wanted one of them")
        root = options.root or path.parent
        return make_plan(with_recipe(old.recipe, path, root, allow_code=code), root)
    root = options.root or models_root(bundle)
    recipe = with_checkpoint(bundle, old.recipe, path, root, options.member, allow_code=code)
    return make_plan(recipe, root)


def _check_kind(bundle: Bundle) -> None:
    """Refuse a graph whose nodes follow from what the weights are.

    Raises:
        RefitError: If it is one.
    """
    manifest = bundle.manifest
    if manifest.quantisation is not None or manifest.neurons is not None:
        what = "was quantised" if manifest.quantisation else "leaves neurons out"
        raise RefitError(
            f"{bundle.folder} {what}, which was decided by its old weights, wanted a graph that "
            "does not depend on them",
            hint=AGAIN,
        )


def _check_sources(bundle: Bundle, plan: Plan) -> None:
    """The old weights say what lies where in the graph, so they have to be the old ones.

    Raises:
        RefitError: If a file has changed.
    """
    recorded: dict[str, set[str]] = {}
    for record in bundle.manifest.sources:
        recorded.setdefault(record.member, set()).add(record.sha256)
    for name, leaf in plan.leaves():
        for path in leaf.files:
            weights = path.suffix in {".safetensors", ".onnx", ".data"}
            if weights and hash_file(path).sha256 not in recorded.get(name, set()):
                raise RefitError(
                    f"{path.name} of {name} has changed since the bundle was made, and only the "
                    "old weights tell what lies where in its graph",
                    hint=f"keep the old file beside the new one; or {AGAIN}",
                )


def _refitted(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    bundle: Bundle, old: Plan, new: Plan, out: Path, options: RefitOptions, progress: Progress
) -> tuple[Outcome, Refit]:
    with publishing(out) as draft:
        for name, leaf in new.leaves():
            checkpoint = leaf.checkpoint()
            if checkpoint is not None:
                progress(f"check weights of {name}", 0, 0)
                check_finite(checkpoint)
        graph = draft.folder / bundle.model.name
        for file in (bundle.model, bundle.model.with_name(bundle.model.name + ".data")):
            if file.is_file():
                shutil.copyfile(file, draft.folder / file.name)
        found = refit_graph(graph, tuple(_leaves(old, new)), new.shapes, progress)
        report = prove_plan(new, graph, progress)
        engine, unbuilt, before = None, None, _old_engine(bundle)
        if report.passed and before is not None:
            engine, unbuilt = _engine(before, graph, found, out, options, progress)
        copy_tokenizer(new, draft.folder)
        manifest = _record(bundle, new, report, engine, found, draft.folder, out)
        failed = out.with_name(out.name + ".failed")
        if not report.passed:
            draft.destination = failed.absolute()
        elif is_bundle(failed):
            shutil.rmtree(failed)  # evidence about a bundle that is now replaced
    place = out if report.passed else failed
    passes = (_as_pass(found),)
    return Outcome(place, manifest, report, engine, passes, unbuilt), found


def _leaves(old: Plan, new: Plan) -> Iterator[Leaf]:
    """The models with their old and new weights.

    Raises:
        RefitError: If an ONNX file is to be replaced by another.
    """
    alone = isinstance(old.root, LeafPlan)
    exported = old.recipe.export.exported
    for (name, before), (_, after) in zip(old.leaves(), new.leaves(), strict=True):
        prefix = "" if alone else f"{name}/"
        dtype = "float32" if before.gates else exported
        if isinstance(before.origin, OnnxModel) or isinstance(after.origin, OnnxModel):
            files = [[hash_file(path) for path in leaf.files] for leaf in (before, after)]
            if files[0] != files[1] or not isinstance(before.origin, OnnxModel):
                raise RefitError(
                    f"{name} is an ONNX file and another one now: its weights cannot be told apart "
                    "from the rest of it",
                    hint=AGAIN,
                )
            yield Leaf(name, prefix, before.origin.path, None, dtype)
        else:
            same = before.origin == after.origin
            yield Leaf(name, prefix, before.origin, None if same else after.origin, dtype)


def _old_engine(bundle: Bundle) -> Engine | None:
    record = bundle.manifest.engine
    if record is None:
        return None
    return Engine(
        path=bundle.folder / "model.plan",
        flavour="tensorrt" if record.flavour == "tensorrt" else "tensorrt-rtx",
        version=record.version,
        compute_capabilities=record.compute_capabilities,
        layers=record.layers,
        seconds=0.0,
        profiles=record.profiles,
        kinds=record.kinds,
        dtypes=record.dtypes,
        conditionals=record.conditionals,
        options=record.options,
        carries_plugins=record.carries_plugins,
        ranges=tuple(
            {name: DimRange(*span) for name, span in each.items()} for each in record.ranges
        ),
        plugin=record.plugin,
    )


def _refittable(engine: Engine) -> bool:
    return engine.options.get("refit") == "any"


def _require(engine: Engine) -> None:
    """Check that an engine can take other weights, and here.

    Raises:
        CapabilityError: If it was not built so, or this machine lacks the package or a GPU.
    """
    if not _refittable(engine):
        raise CapabilityError(
            f"{engine.path} was not built to take other weights",
            hint="toolkit build --refit any builds one that does",
        )
    require_refit(engine.flavour)


def _engine(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    engine: Engine, graph: Path, found: Refit, out: Path, options: RefitOptions, progress: Progress
) -> tuple[Engine | None, CapabilityError | None]:
    """The engine with the new weights; or what is left to do on another machine."""
    try:
        _require(engine)
    except CapabilityError as error:
        again = f"toolkit refit {engine.path.parent} --with {options.weights} -o {out}"
        then = f"{error.hint}; then: {again}" if _refittable(engine) else error.hint
        return None, CapabilityError(
            f"{out} holds the proven graph with its new weights, without its engine: "
            f"{error.message}",
            hint=f"{then}; or build it anew: toolkit build {out}",
        )
    place = graph.with_name(engine.path.name)
    return refit_engine(engine, graph, found.replaced, place, progress), None


def _record(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are recorded)
    bundle: Bundle,
    plan: Plan,
    report: ParityReport,
    engine: Engine | None,
    found: Refit,
    folder: Path,
    out: Path,
) -> Manifest:
    old = bundle.manifest
    inputs = tuple(record.spec() for record in old.inputs)
    outputs = tuple(record.spec() for record in old.outputs)
    model = OnnxModel(folder / bundle.model.name, inputs, outputs, old.opset)
    return write_record(
        plan, model, report, engine, (_as_pass(found),), folder, out, old.experts
    )  # fmt: skip


def _as_pass(found: Refit) -> PassReport:
    return PassReport("refit", found.replaced, ())
