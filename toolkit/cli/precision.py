"""``toolkit precision``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from toolkit.pipeline import Sensitivity

__all__ = ["precision_command"]


def precision_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle exported in float32.", metavar="BUNDLE")],
    max_error: Annotated[
        Optional[float],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(min=0.0, help="Suggest the nodes to keep for a relative error of at most so."),
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Inputs to run, the most telling first.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Lower a bundle's graph to float16 one part at a time and show which parts mind.

    Errors are root mean squares against the graph in float32, relative to the output's own. Exits
    with 3 where --max-error cannot be met.
    """
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import measure_sensitivity

    with progress() as report:
        found = measure_sensitivity(bundle, report, max_error=max_error, count=cases)
    _show(found, as_json=json)
    return 3 if max_error is not None and found.keep is None else 0


def _show(found: Sensitivity, *, as_json: bool) -> None:
    from dataclasses import asdict

    from rich.markup import escape

    from toolkit.cli.terminal import show, table

    rows = [(group.name, group.nodes, f"{group.error:.3g}") for group in found.groups]
    title = f"Error when only this is float16, {found.cases} cases"
    lines = [f"all lowered: {found.lowered:.3g}"]
    if found.keep:
        listed = ", ".join(f'"{pattern}"' for pattern in found.keep)
        lines.append(f"error {found.kept:.3g} with export:")
        lines.append(escape(f"{{precision: mixed_float16, keep_float32: [{listed}]}}"))
    elif found.keep is not None:
        lines.append("export: {precision: mixed_float16} is within the error, nothing to keep")
    elif found.max_error is not None:
        lines.append(f"no part can be lowered within {found.max_error:g}")
    show(
        asdict(found),
        as_json=as_json,
        tables=[table(title, ["nodes of", "nodes", "error"], rows, right=2), "\n".join(lines)],
    )
