"""``toolkit inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect_command"]


def inspect_command(
    path: Annotated[
        Path, typer.Argument(help="A model folder, .safetensors, .onnx, bundle, recipe or .plan.")
    ],
    sparsity: Annotated[
        bool,
        typer.Option("--sparsity", help="Read a checkpoint's weights: zeros, and where 2:4 holds."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a file or folder holds, from headers alone."""
    from toolkit.cli.terminal import pairs, show, table
    from toolkit.inspection import inspect_path, inspect_zeros

    found = inspect_zeros(path) if sparsity else inspect_path(path)
    numeric = {"bytes", "nodes", "active per token"}
    tables = [pairs(f"{path} ({found.kind})", found.facts)]
    for section in found.sections:
        right = int(section.columns[-1] in numeric)
        tables.append(table(section.title, section.columns, section.rows, right=right))
    show(found.to_dict(), as_json=json, tables=tables)
