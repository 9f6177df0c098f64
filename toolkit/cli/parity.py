"""``toolkit parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["parity_command"]


def parity_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by export.", metavar="BUNDLE")],
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Judge the files even where the manifest differs.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where the recipe's models lie [default: where they lay at export]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> int:
    """Prove a bundle again: its graph against the recipe's meaning in PyTorch float64.

    The recipe's models must still lie where they were; files are checked against the manifest.
    """
    from toolkit.cli.outcome import show_parity
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import prove_bundle

    with progress() as report:
        proof = prove_bundle(bundle, report, allow_code=allow_code, as_is=as_is, root=root)
    show_parity(proof, as_json=json)
    return 0 if proof.passed else 3
