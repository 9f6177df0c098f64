"""``toolkit soup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["soup_command"]


def soup_command(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe whose model is a soup.", metavar="RECIPE")
    ],
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to write.", metavar="OUT")],
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(help="Folder the recipe's paths start from [default: the recipe's own]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score fine-tunes on held-out data and write the average of those that help.

    The table shows every candidate: its own score, the soup's with it, and the decision.
    """
    from toolkit.errors import RecipeError
    from toolkit.recipe import SoupModel, load_recipe

    loaded = load_recipe(recipe, allow_code=allow_code, root=root)
    if not isinstance(loaded.model, SoupModel):
        raise RecipeError(
            f"{recipe}: the model is not a soup", hint="model: {soup: {members: […], accuracy: …}}"
        )

    from toolkit.cli.terminal import progress, show, table
    from toolkit.pipeline import make_soup_of, soup_members

    members = soup_members(loaded.model, loaded, root or recipe.parent)
    with progress() as report:
        made = make_soup_of(loaded.model, members, out, loaded.seed, report)
    rows = [
        (
            step.name,
            f"{step.alone:.6g}",
            f"{step.together:.6g}",
            "kept" if step.kept else "left out",
        )
        for step in made.steps
    ]
    listed = table(f"{made.kind} soup", ["member", made.metric, "soup with it", "decision"], rows)
    ending = f"{out}: {made.metric} {made.score:.6g}, best member {made.best:.6g}"
    show(made.to_json(), as_json=json, tables=[listed, ending])
