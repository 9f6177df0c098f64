"""The plan of a bundle, from the recipe that lies in it."""

from __future__ import annotations

from pathlib import Path

from toolkit.bundle import Bundle
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.prove import models_root
from toolkit.recipe import load_recipe

__all__ = ["bundle_plan"]


def bundle_plan(bundle: Bundle, *, allow_code: bool = False, root: Path | None = None) -> Plan:
    """Resolve the bundle's recipe.

    Args:
        bundle: The bundle.
        allow_code: Whether factories may run.
        root: Where the recipe's models lie, if not where they lay at export.

    Raises:
        BundleError: If the folder with the models is gone.
        ToolkitError: If the recipe cannot be resolved.
    """
    place = root or models_root(bundle)
    recipe = load_recipe(bundle.folder / "recipe.yaml", allow_code=allow_code, root=place)
    return make_plan(recipe, place)
