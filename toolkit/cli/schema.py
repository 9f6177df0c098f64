"""``toolkit schema``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["schema_command"]


def schema_command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON (the only form).")] = True,
) -> None:
    """Print the JSON Schema of the recipe.

    For editors: save it, and point the first line of a recipe at it
    (``# yaml-language-server: $schema=recipe.schema.json``).
    """
    from toolkit.cli.terminal import show
    from toolkit.recipe import recipe_schema

    show(recipe_schema(), as_json=json, tables=[])
