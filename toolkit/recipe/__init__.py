"""The recipe: one YAML file that says what to build, validated before anything is loaded."""

from toolkit.recipe.base import LoadContext
from toolkit.recipe.distilling import (
    CacheSpec,
    DataSpec,
    LayersSpec,
    MatchSpec,
    ObjectiveSpec,
    StudentSpec,
    TrainingSpec,
)
from toolkit.recipe.engines import EngineSettings, engine_options, size_in_bytes
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
    DistillModel,
    DistillSpec,
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
from toolkit.recipe.settings import Input, PassSettings
from toolkit.recipe.shapes import check_shapes
from toolkit.recipe.stacks import Feed

__all__ = [
    "BUILT_IN_FACTORIES",
    "CacheSpec",
    "CheckpointModel",
    "DataSpec",
    "DistillModel",
    "DistillSpec",
    "EngineSettings",
    "EnsembleModel",
    "EnsembleSpec",
    "ExportSettings",
    "FactoryModel",
    "Feed",
    "GateSpec",
    "Input",
    "LayersSpec",
    "LoadContext",
    "MatchSpec",
    "MergeModel",
    "Model",
    "MoeModel",
    "ObjectiveSpec",
    "OnnxFile",
    "ParitySettings",
    "PassSettings",
    "Problem",
    "Recipe",
    "SoupModel",
    "SoupSpec",
    "StackModel",
    "StackSpec",
    "StudentSpec",
    "TrainingSpec",
    "check_shapes",
    "duration",
    "engine_options",
    "load_recipe",
    "parse_recipe",
    "recipe_error",
    "recipe_schema",
    "resolved_yaml",
    "size_in_bytes",
]
