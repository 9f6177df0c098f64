"""From a recipe to a bundle, and from a bundle back to its proof."""

from toolkit.pipeline.export import Outcome, export_recipe, publish_path
from toolkit.pipeline.plan import Plan, make_plan
from toolkit.pipeline.prove import prove_bundle

__all__ = ["Outcome", "Plan", "export_recipe", "make_plan", "prove_bundle", "publish_path"]
