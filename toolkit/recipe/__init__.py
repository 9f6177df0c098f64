"""The recipe: one YAML file that says what to build, validated before anything is loaded."""

from toolkit.recipe.base import LoadContext
from toolkit.recipe.exporting import ExportSettings
from toolkit.recipe.kinds import (
    BUILT_IN_FACTORIES,
    CheckpointModel,
    FactoryModel,
    MergeModel,
    MoeModel,
    OnnxFile,
)
from toolkit.recipe.load import load_recipe, parse_recipe, recipe_schema, resolved_yaml
from toolkit.recipe.models import (
    EnsembleModel,
    EnsembleSpec,
    GateSpec,
    Model,
    SoupModel,
    SoupSpec,
    StackModel,
    StackSpec,
)
from toolkit.recipe.problems import Problem, recipe_error
from toolkit.recipe.proving import ParitySettings, duration
from toolkit.recipe.recipe import Recipe
from toolkit.recipe.settings import EngineSettings, Input, PassSettings
from toolkit.recipe.shapes import check_shapes
from toolkit.recipe.stacks import Feed

__all__ = [
    "BUILT_IN_FACTORIES",
    "CheckpointModel",
    "EngineSettings",
    "EnsembleModel",
    "EnsembleSpec",
    "ExportSettings",
    "FactoryModel",
    "Feed",
    "GateSpec",
    "Input",
    "LoadContext",
    "MergeModel",
    "Model",
    "MoeModel",
    "OnnxFile",
    "ParitySettings",
    "PassSettings",
    "Problem",
    "Recipe",
    "SoupModel",
    "SoupSpec",
    "StackModel",
    "StackSpec",
    "check_shapes",
    "duration",
    "load_recipe",
    "parse_recipe",
    "recipe_error",
    "recipe_schema",
    "resolved_yaml",
]
