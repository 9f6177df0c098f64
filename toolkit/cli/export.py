"""``toolkit export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from toolkit.recipe import Recipe

__all__ = ["Part", "Target", "export_command"]


class Target(str, Enum):
    """What to build, as the recipe's ``target``."""

    onnx = "onnx"
    tensorrt_rtx = "tensorrt-rtx"
    tensorrt = "tensorrt"


class Part(str, Enum):
    """Which graph of encoder-decoder models, as the recipe's ``part``."""

    encoder = "encoder"
    decoder = "decoder"


def export_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")],
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(
            "-o", "--out", help="The bundle to write [default: the recipe's name, and its part]."
        ),
    ] = None,
    target: Annotated[
        Optional[Target],  # noqa: UP045
        typer.Option(help="Overrides the recipe's target."),
    ] = None,
    part: Annotated[
        Optional[Part],  # noqa: UP045
        typer.Option(help="Overrides the recipe's part."),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder the recipe's paths start from [default: the recipe's own]."),
    ] = None,
    bisect_passes: Annotated[
        bool,
        typer.Option(
            "--bisect-passes",
            help="Write nothing; prove the graph after fusing and after each pass, and name the "
            "first that breaks it.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Build a recipe into a bundle: one graph, its engine, and the proof that it is right.

    The bundle appears at once when everything has passed, or not at all.
    """
    from toolkit.recipe import load_recipe

    # A mistake in the recipe is told before torch, which takes seconds, is loaded.
    loaded = load_recipe(recipe, allow_code=allow_code, root=root)
    if target is not None:
        loaded = loaded.model_copy(update={"target": target.value})
    if part is not None:
        loaded = loaded.model_copy(update={"part": part.value})

    if bisect_passes:
        return _bisect(loaded, root or recipe.parent, json=json)

    from toolkit.cli.outcome import show_export
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import export_recipe, publish_path

    with progress() as report:
        place = publish_path(recipe, out, loaded.part)
        outcome = export_recipe(loaded, root or recipe.parent, place, report)
    show_export(outcome, as_json=json)
    return 0 if outcome.report.passed else 3


def _bisect(recipe: Recipe, folder: Path, *, json: bool) -> int:
    from toolkit.cli.explanation import show_bisection
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import bisect_passes

    with progress() as report:
        found = bisect_passes(recipe, folder, report)
    show_bisection(found, as_json=json)
    return 0 if found.culprit is None else 3
