"""``toolkit refit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["refit_command"]


def refit_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by export.", metavar="BUNDLE")],
    weights: Annotated[
        Path,
        typer.Option(
            "--with",
            help="The new weights: a model folder, a safetensors file for a factory, or a recipe.",
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option("-o", "--out", help="The bundle to write."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace BUNDLE itself, in one step.")
    ] = False,
    member: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model that a checkpoint is for, where there are several."),
    ] = None,
    reexport: Annotated[
        bool, typer.Option("--reexport", help="Export afresh what cannot be refitted.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where the recipe's models lie [default: where they lay at export]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Put new weights of the same recipe into a bundle, and prove it again.

    Another merge, a later checkpoint, a soup: the graph keeps its nodes and gets their weights,
    without an export. The old weights must still lie where they were. A refittable engine is
    refitted, too.
    """
    from toolkit.errors import ToolkitError

    if in_place == (out is not None):
        raise ToolkitError(
            "found " + ("both -o and --in-place" if in_place else "neither -o nor --in-place"),
            hint="-o DIR writes another bundle, --in-place replaces this one",
        )

    from toolkit.cli.outcome import show_export
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import RefitOptions, refit_bundle

    options = RefitOptions(weights, member, allow_code, root, reexport)
    with progress() as report:
        outcome, found = refit_bundle(bundle, options, out or bundle, report)
    show_export(outcome, as_json=json)
    if found is not None and not json:
        _tell(found.kept, found.unread)
    if outcome.unbuilt is not None:
        raise outcome.unbuilt
    return 0 if outcome.report.passed else 3


def _tell(kept: tuple[str, ...], unread: tuple[str, ...]) -> None:
    """What was left as it is, on standard error: notes, not data."""
    from toolkit.cli.terminal import note

    if kept:
        note(f"kept as constants: {_some(kept)}")
    if unread:
        note(f"changed, and read by no output: {_some(unread)}")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
