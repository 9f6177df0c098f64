"""What export and parity print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from toolkit.cli.explanation import explanation_data, explanation_tables
from toolkit.cli.terminal import show, table

if TYPE_CHECKING:
    from toolkit.parity import ParityReport
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
    }
    listed = table(
        str(outcome.folder),
        ["file", "bytes"],
        [(name, f"{size:,}") for name, size in files.items()],
        right=1,
    )
    tables: list[Table | str] = [listed, _parity_table(outcome.report)]
    if outcome.engine is not None:
        tables.append(
            f"model.plan: {outcome.engine.flavour} {outcome.engine.version}, "
            f"{outcome.engine.layers} layers, built in {outcome.engine.seconds:.1f} s. "
            "Not run: that needs an NVIDIA GPU."
        )
    show(data, as_json=as_json, tables=[*tables, _verdict(outcome.report)])


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
    rows = [
        (v.candidate, v.output, c.gate, c.status, f"{c.measured:.3g}", f"{c.limit:.3g}")
        for v in report.verdicts
        for c in v.checks
    ]
    title = f"Parity with {report.reference}, {len(report.cases)} cases"
    columns = ["runtime", "output", "gate", "status", "measured", "limit"]
    return table(title, columns, rows, right=2)


def _verdict(report: ParityReport) -> str:
    if report.passed:
        return "[green]parity passed[/green]"
    verdict, check = report.failures()[0]
    place = escape(f"{verdict.output} of {verdict.candidate}, {check.gate}: {check.detail}")
    return f"[red]parity FAILED[/red]: {place}"
