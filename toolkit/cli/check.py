"""``toolkit check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from graphs import Violation

__all__ = ["check_command"]


def check_command(
    path: Annotated[Path, typer.Argument(help="A bundle or an .onnx file.", metavar="PATH")],
    target: Annotated[
        Literal["tensorrt", "tensorrt-rtx"], typer.Option(help="The builder to ask about.")
    ] = "tensorrt",
    version: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Its version, such as 10.8 [default: all that are supported]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show what TensorRT or TensorRT-RTX will refuse in a graph, on any machine.

    Nothing is built and no weight is read. Exits with 1 if every version that was asked about
    refuses something; what only some refuse is shown, too.
    """
    from dataclasses import asdict

    from toolkit.checking import check_path
    from toolkit.cli.terminal import show

    found = check_path(path, target, version or "")
    data = {"path": str(path), "target": target, "violations": [asdict(each) for each in found]}
    show(data, as_json=json, tables=[*map(_lines, found), _summary(found)])
    return int(any(each.always for each in found))


def _lines(violation: Violation) -> str:
    from rich.markup import escape

    effect = "" if violation.effect == "refused" else f" ({violation.effect})"
    lines = [
        str(violation), f"{violation.versions}{effect}; known from: {violation.source}",
        violation.hint,
    ]  # fmt: skip
    return escape("\n  ".join(filter(None, lines)))


def _summary(found: tuple[Violation, ...]) -> str:
    if not found:
        return "Nothing in this graph is known to be refused."
    always = sum(each.always for each in found)
    return f"{always} refused, {len(found) - always} refused by some versions only"
