"""What export and parity print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from toolkit.cli.explanation import explanation_data, explanation_tables
from toolkit.cli.neurons import neuron_tables
from toolkit.cli.terminal import show, table

if TYPE_CHECKING:
    from toolkit.parity import Check, ParityReport
    from toolkit.parity.explain import Explanation
    from toolkit.pipeline import Outcome

__all__ = ["show_export", "show_parity"]


def show_export(outcome: Outcome, *, as_json: bool) -> None:
    """The bundle's files and the verdict."""
    files = {name: record.bytes for name, record in outcome.manifest.files.items()}
    data: dict[str, Any] = {
        "bundle": str(outcome.folder),
        "verdict": outcome.manifest.verdict,
        "files": files,
        "engine": outcome.manifest.engine.model_dump() if outcome.manifest.engine else None,
        "unbuilt": outcome.unbuilt.message if outcome.unbuilt else None,
        "passes": [asdict(step) for step in outcome.passes],
        "neurons": outcome.manifest.neurons.model_dump() if outcome.manifest.neurons else None,
    }
    listed = table(
        str(outcome.folder),
        ["file", "bytes"],
        [(name, f"{size:,}") for name, size in files.items()],
        right=1,
    )
    tables: list[Table | str] = [listed, *_passes(outcome)]
    tables += [*neuron_tables(outcome.manifest.neurons), _parity_table(outcome.report)]
    if outcome.engine is not None:
        tables.append(
            f"model.plan: {outcome.engine.flavour} {outcome.engine.version}, "
            f"{outcome.engine.layers} layers, built in {outcome.engine.seconds:.1f} s. "
            "Not run: that needs an NVIDIA GPU."
        )
    show(data, as_json=as_json, tables=[*tables, _verdict(outcome.report)])


def _passes(outcome: Outcome) -> list[Table | str]:
    """What each pass did, where one did something."""
    from toolkit.pipeline.writing import summarise_misses

    rows = [
        (step.name, f"{len(step.sites):,}", summarise_misses(step, 1))
        for step in outcome.passes
        if step.sites or step.near_misses
    ]
    return [table("Passes", ["pass", "sites", "near misses"], rows)] if rows else []


def show_parity(
    report: ParityReport, *, as_json: bool, explanation: Explanation | None = None
) -> None:
    """The proof, and where it goes wrong if that was asked for."""
    tables: list[Table | str] = [_parity_table(report), _verdict(report)]
    data = json.loads(report.to_json())
    if explanation is not None:
        tables += explanation_tables(explanation)
        data["explanation"] = explanation_data(explanation)
    show(data, as_json=as_json, tables=tables)


def _parity_table(report: ParityReport) -> Table:
    """One row for each gate of each runtime: its worst output."""
    worst: dict[tuple[str, str, str], tuple[str, Check]] = {}
    for verdict in report.verdicts:
        for check in verdict.checks:
            key = (verdict.candidate, check.level, check.gate)
            if key not in worst or _rank(check) > _rank(worst[key][1]):
                worst[key] = (verdict.output, check)
    rows = [
        (candidate, level, gate, output, check.status, *_figures(check))
        for (candidate, level, gate), (output, check) in worst.items()
    ]
    title = f"Parity with {report.reference}, {len(report.cases)} cases"
    if report.not_run:
        title += f", {len(report.not_run)} not run"
    columns = ["runtime", "level", "gate", "worst output", "status", "measured", "limit"]
    return table(title, columns, rows, right=2)


def _rank(check: Check) -> tuple[int, float]:
    """Failures above what was run above what was not; then by how much of the limit is used."""
    return {"not run": 0, "pass": 1, "fail": 2}[check.status], check.excess


def _figures(check: Check) -> tuple[str, str]:
    if check.status == "not run":
        return "", ""
    return f"{check.measured:.3g}", f"{check.limit:.3g}"


def _verdict(report: ParityReport) -> str:
    said = "[green]parity passed[/green]" if report.passed else _failure(report)
    lines = [said, *(f"note: {escape(note)}" for note in report.notes)]
    if report.not_run:
        kinds = ", ".join(dict.fromkeys(case.kind for case in report.not_run))
        lines.append(
            f"[yellow]not run[/yellow]: {len(report.not_run)} cases that the time did not suffice"
            f" for ({escape(kinds)}); they count for nothing"
        )
    return "\n".join(lines)


def _failure(report: ParityReport) -> str:
    failures = report.failures()
    if not failures:
        return "[red]parity FAILED[/red]: nothing was compared, so nothing is proven"
    verdict, check = failures[0]
    place = f"{verdict.output} of {verdict.candidate}" if verdict.output else verdict.candidate
    return f"[red]parity FAILED[/red]: {escape(f'{place}, {check.gate}: {check.detail}')}"
