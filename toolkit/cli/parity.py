"""``toolkit parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

__all__ = ["parity_command"]

_SAVE_CASE = (
    "Instead of the proof, write one case as a folder with a script that shows it: a number or "
    "name of parity.json's cases."
)


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
    runtime: Annotated[
        Literal["cpu", "cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"],
        typer.Option(
            help="What runs: the graph in ONNX Runtime (cpu, cuda, ort-tensorrt), or the engine."
        ),
    ] = "cpu",
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Time for the proof, such as 60s [default: the recipe's, or unbounded]."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Name the node that goes wrong: exports the recipe again."),
    ] = False,
    case: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--save-case", metavar="CASE", help=_SAVE_CASE),
    ] = None,
    case_out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The folder for --save-case [default: BUNDLE.case]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> int:
    """Prove a bundle again: its graph against the recipe's meaning in PyTorch float64.

    The recipe's models must still lie where they were; files are checked against the manifest.
    """
    from toolkit.cli.outcome import show_parity
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import explain_bundle, prove_bundle
    from toolkit.recipe import duration

    if case is not None:
        return _save(bundle, case, case_out, allow_code=allow_code, root=root, json=json)
    seconds = None if budget is None else duration(budget)
    with progress() as report:
        proof = prove_bundle(
            bundle, report, allow_code=allow_code, as_is=as_is, root=root, runtime=runtime,
            seconds=seconds,
        )  # fmt: skip
        found = None
        if explain:
            found = explain_bundle(bundle, proof, report, allow_code=allow_code, root=root)
    show_parity(proof, as_json=json, explanation=found)
    return 0 if proof.passed else 3


def _save(
    bundle: Path, case: str, out: Path | None, *, allow_code: bool, root: Path | None, json: bool
) -> int:
    from toolkit.cli.explanation import show_saved_case
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import save_case

    place = out or bundle.with_name(bundle.name + ".case")
    with progress() as report:
        saved = save_case(bundle, case, place, report, allow_code=allow_code, root=root)
    show_saved_case(saved, as_json=json)
    return 0 if saved.passed else 3
