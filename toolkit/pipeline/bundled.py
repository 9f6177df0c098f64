"""The plan of a bundle, from the recipe that lies in it."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.bundle import Bundle
from toolkit.errors import BundleError
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.writing import source_records
from toolkit.recipe import load_recipe

__all__ = ["bundle_plan", "check_unchanged", "models_root"]


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


def check_unchanged(bundle: Bundle, plan: Plan) -> None:
    """Whether the models are still those that the bundle was made of.

    Raises:
        BundleError: Naming the first file that is not.
    """
    recorded = {(each.member, each.path): each.sha256 for each in bundle.manifest.sources}
    for each in source_records(plan):
        if recorded.get((each.member, each.path)) != each.sha256:
            raise BundleError(
                f"{each.path} of member {each.member!r} has changed since {bundle.folder} was made",
                hint="export the recipe again",
            )


def models_root(bundle: Bundle) -> Path:
    """The folder the recipe's paths start from, found relative to the bundle.

    Raises:
        BundleError: If it is not there.
    """
    root = Path(os.path.normpath(bundle.folder.resolve() / bundle.manifest.root))
    if not root.is_dir():
        raise BundleError(
            f"the models of {bundle.folder} lay in {bundle.manifest.root} beside it, "
            "which is not there",
            hint="tell where they are now with --root DIR",
        )
    return root
