"""The two graphs of encoder-decoder models: whether a recipe's models have the one asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from toolkit.caches import CROSS
from toolkit.errors import RecipeError
from toolkit.sources import Part

if TYPE_CHECKING:
    from toolkit.pipeline.nodes import LeafPlan

__all__ = ["check_part"]

_HINT = "leave part out, or name encoder-decoder models only"


def check_part(part: Part | None, leaves: Iterable[tuple[str, LeafPlan]]) -> None:
    """Refuse models that have no caches of cross-attention where the recipe asks for a part.

    Gates read what their members read and have none.

    Raises:
        RecipeError: Naming the model.
    """
    if part is None:
        return
    for name, leaf in leaves:
        names = leaf.outputs if part == "encoder" else [spec.name for spec in leaf.inputs]
        if not leaf.gates and not any(own.startswith(CROSS) for own in names):
            verb = "gives" if part == "encoder" else "takes"
            raise RecipeError(
                f"the recipe asks for part: {part}, and {name!r} {verb} no {CROSS}…", hint=_HINT
            )
