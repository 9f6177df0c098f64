"""Writes what goes beside the graph: resolved recipe, proof, report, manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphs import PassReport
from toolkit.artifacts import Engine, OnnxModel, TensorSpec
from toolkit.bundle import (
    MANIFEST,
    EngineRecord,
    ExpertRecord,
    FileRecord,
    Manifest,
    NeuronRecord,
    QuantisationRecord,
    SourceRecord,
    TensorRecord,
    hash_file,
    versions,
)
from toolkit.parity import ParityReport
from toolkit.pipeline.lineage import lineage
from toolkit.pipeline.plan import Plan
from toolkit.recipe import resolved_yaml
from toolkit.report import FileEntry, ReportContext, Table, write_report

__all__ = ["source_records", "summarise_misses", "write_record"]


def write_record(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are recorded)
    plan: Plan,
    model: OnnxModel,
    report: ParityReport,
    engine: Engine | None,
    passes: Sequence[PassReport],
    folder: Path,
    out: Path,
    experts: ExpertRecord | None = None,
    neurons: NeuronRecord | None = None,
    quantisation: QuantisationRecord | None = None,
) -> Manifest:
    """Write ``recipe.yaml``, ``parity.json``, ``report.html`` and, last, ``manifest.json``."""
    recipe = plan.recipe.model_copy(update={"shapes": dict(plan.shapes)})
    (folder / "recipe.yaml").write_text(resolved_yaml(recipe), encoding="utf-8")
    (folder / "parity.json").write_text(report.to_json(), encoding="utf-8")
    files = {path.relative_to(folder).as_posix(): hash_file(path) for path in _files(folder)}
    context = ReportContext(
        title=out.name,
        parity=json.loads(report.to_json()),
        model=lineage(plan),
        environment=versions(),
        files=tuple(FileEntry(name, file.bytes, file.sha256) for name, file in files.items()),
        tables=(_passes(passes),),
    )
    page = folder / "report.html"
    write_report(page, context)
    files[page.name] = hash_file(page)
    manifest = _manifest(plan, model, report, engine, files, out).model_copy(
        update={"experts": experts, "neurons": neurons, "quantisation": quantisation}
    )
    manifest.write(folder / MANIFEST)
    return manifest


def _passes(passes: Sequence[PassReport]) -> Table:
    rows = [(step.name, str(len(step.sites)), summarise_misses(step, 3)) for step in passes]
    note = "A near miss is a place that almost matched and was left alone."
    return Table("Passes", ("pass", "sites", "near misses"), tuple(rows), note)


def summarise_misses(step: PassReport, most: int) -> str:
    """The first near misses of a pass and how many more there are."""
    said = [f"{miss.node}: {miss.reason}" for miss in step.near_misses[:most]]
    more = len(step.near_misses) - len(said)
    return "; ".join([*said, *([f"and {more} more"] if more else [])])


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _manifest(  # noqa: PLR0913, PLR0917
    plan: Plan,
    model: OnnxModel,
    report: ParityReport,
    engine: Engine | None,
    files: dict[str, FileRecord],
    out: Path,
) -> Manifest:
    recipe = plan.recipe
    return Manifest(
        root=os.path.relpath(plan.folder.resolve(), out.resolve()),
        verdict="passed" if report.passed else "failed",
        target=recipe.target,
        opset=model.opset,
        seed=recipe.seed,
        inputs=tuple(map(_tensor, model.inputs)),
        outputs=tuple(map(_tensor, model.outputs)),
        shapes={name: (span.min, span.opt, span.max) for name, span in plan.shapes.items()},
        engine=None if engine is None else EngineRecord.of(engine),
        versions=versions(),
        sources=tuple(source_records(plan)),
        files=files,
    )


def _tensor(spec: TensorSpec) -> TensorRecord:
    return TensorRecord(
        name=spec.name, dtype=spec.dtype, shape=spec.shape,
        low=spec.low, high=spec.high, role=spec.role,
    )  # fmt: skip


def source_records(plan: Plan) -> Iterator[SourceRecord]:
    """Every file that goes in, with its hash."""
    root = plan.folder
    for name, leaf in plan.leaves():
        for path in leaf.files:
            inside = path.resolve().is_relative_to(root.resolve())
            shown = path.resolve().relative_to(root.resolve()) if inside else Path(path.name)
            record = hash_file(path)
            yield SourceRecord(
                member=name, path=shown.as_posix(), sha256=record.sha256, bytes=record.bytes
            )
