"""The recipe: one file that says what to build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError
from toolkit.recipe.base import RecipeModel
from toolkit.recipe.engines import EngineSettings, engine_problems
from toolkit.recipe.exporting import ExportSettings
from toolkit.recipe.models import MAX_MODEL_DEPTH, EnsembleModel, Model, StackModel
from toolkit.recipe.names import resolved_model, walk
from toolkit.recipe.problems import Location, Problem, dotted, shown
from toolkit.recipe.proving import ParitySettings
from toolkit.recipe.settings import Input, PassSettings, Range, Seed
from toolkit.recipe.shapes import check_shapes

__all__ = ["Recipe"]

InputName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Recipe(RecipeModel):
    """What to build, from which models, for which shapes and which runtime."""

    model: Annotated[
        Model,
        Field(
            description="Exactly one kind: checkpoint, factory, onnx, merge, moe, soup, distill, "
            "ensemble or stack. Once validated, every model has a name and every ensemble its "
            "weights."
        ),
    ]
    part: Annotated[
        Literal["encoder", "decoder"] | None,
        Field(
            description="Which of the two graphs of encoder-decoder models: the encoder gives the "
            "caches of cross-attention, the decoder takes them at every step."
        ),
    ] = None
    inputs: Annotated[
        dict[InputName, Input],
        Field(
            default_factory=dict,
            description="Inputs by name. Required for factories, otherwise read from the model.",
        ),
    ]
    shapes: Annotated[
        dict[str, Range],
        Field(
            default_factory=dict,
            description="The range of every named dimension: [min, opt, max] or one number.",
        ),
    ]
    export: Annotated[ExportSettings, Field(description="How models become ONNX.")] = (
        ExportSettings()
    )
    passes: Annotated[
        tuple[PassSettings, ...], Field(description="Rewrites of the fused graph, in order.")
    ] = ()
    target: Annotated[
        Literal["onnx", "tensorrt-rtx", "tensorrt"],
        Field(description="onnx; tensorrt-rtx adds an engine, no GPU needed; tensorrt needs one."),
    ] = "onnx"
    engine: Annotated[EngineSettings, Field(description="How an engine is built.")] = (
        EngineSettings(profiles={}, memory={})
    )
    parity: Annotated[ParitySettings, Field(description="What the parity proof runs.")] = (
        ParitySettings()
    )
    seed: Annotated[Seed, Field(description="Seed of everything random.")] = 0

    def models(self) -> Iterator[tuple[str, Model]]:
        """Every model with its place, such as ``model.ensemble.members[1]``, parents first."""
        for path, model in walk(self.model):
            yield dotted(path), model

    def leaves(self) -> tuple[Model, ...]:
        """The models that are neither ensembles nor stacks, in order."""
        nests = (EnsembleModel, StackModel)
        return tuple(m for _, m in walk(self.model) if not isinstance(m, nests))

    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The declared inputs; empty where the models know their own."""
        return tuple(declared.spec(name) for name, declared in self.inputs.items())

    @property
    def parity_seed(self) -> int:
        """The seed of parity's inputs."""
        return self.seed if self.parity.seed is None else self.parity.seed

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Names differ, nesting is bounded, factories have inputs, dimensions have ranges."""
        models = list(walk(data.get("model")))
        yield from _depth_problems(models)
        yield from _name_problems(models)
        inputs = data.get("inputs")
        if not inputs:
            yield from _missing_inputs(models)
        elif isinstance(inputs, dict):
            yield from _shape_problems(inputs, data.get("shapes", {}))
        yield from _empty_problems(data.get("shapes"))
        yield from _target_problems(data.get("export"), data.get("target", "onnx"))
        yield from engine_problems(data.get("engine"), data.get("target"))

    @model_validator(mode="after")
    def _resolve(self) -> Recipe:
        # Frozen for everybody else; the models given are copied, not changed.
        object.__setattr__(self, "model", resolved_model(self.model))
        return self


def _depth_problems(models: list[tuple[Location, Any]]) -> Iterator[Problem]:
    for path, _ in models:
        depth = 1 + sum(map(path.count, ("members", "stages", "gate", "teachers")))
        if depth > MAX_MODEL_DEPTH:
            yield Problem(path, f"models are nested deeper than {MAX_MODEL_DEPTH} levels")
            return


def _name_problems(models: list[tuple[Location, Any]]) -> Iterator[Problem]:
    seen: dict[str, Location] = {}
    for path, model in models:
        name = model.get("name") if isinstance(model, dict) else getattr(model, "name", None)
        if not isinstance(name, str) or not name:
            continue
        if name in seen:
            yield Problem(
                (*path, "name"),
                f"the name {shown(name)} is given to {dotted(seen[name])} already",
                "names become prefixes in the fused graph, so they must differ",
            )
        seen.setdefault(name, path)


def _missing_inputs(models: list[tuple[Location, Any]]) -> Iterator[Problem]:
    for path, model in models:
        factory = isinstance(model, dict) and "factory" in model
        # A gate sees the members' inputs, which models of other kinds know; what is fed has a type.
        if (factory or hasattr(model, "factory")) and "gate" not in path and not _later(path):
            yield Problem(
                ("inputs",),
                f"required key is missing: {dotted(path)} is a factory, whose inputs only the "
                "recipe can name",
                "for example inputs: {pixels: 'float32[batch, 1, 8, 8]'}",
            )
            return


def _later(path: Location) -> bool:
    """Whether a model is in a stage behind the first of a stack."""
    return any(step == "stages" and place != 0 for step, place in pairwise(path))


def _empty_problems(shapes: Any) -> Iterator[Problem]:
    for name, span in shapes.items() if isinstance(shapes, dict) else ():
        smallest = span[0] if isinstance(span, list) and span else getattr(span, "min", None)
        if smallest == 0 and not str(name).startswith("past_"):
            yield Problem(
                ("shapes", name),
                "found a minimum of 0, wanted 1 or more",
                "only lengths named past_…, such as past_sequence, can be empty",
            )


def _said(settings: Any, key: str) -> Any:
    """What settings say, raw or validated; None where they are neither."""
    found = settings.get(key) if isinstance(settings, dict) else getattr(settings, key, None)
    return found if isinstance(found, str) else None


_TENSORRT = ("tensorrt-rtx", "tensorrt")


def _target_problems(export: Any, target: Any) -> Iterator[Problem]:
    """An operator of one runtime is nothing to another."""
    if _said(export, "experts") == "native" and target == "tensorrt-rtx":
        yield Problem(
            ("export", "experts"),
            "native is an operator of ONNX Runtime's or TensorRT's own, which TensorRT-RTX cannot "
            f"build, found target: {shown(target)}",
            "auto, conditionals and rows are for every target",
        )
    precision = _said(export, "precision")
    if precision in {"int8_dynamic", "int8_weights"} and target in _TENSORRT:
        yield Problem(
            ("export", "precision"),
            f"{precision} is ONNX Runtime's, found target: {shown(target)}",
            "int8 and int4_weights are for TensorRT too",
        )
    if precision == "fp8" and target == "onnx":
        yield Problem(
            ("export", "precision"),
            f"fp8 is TensorRT's, found target: {shown(target)}",
            "int8 is for ONNX Runtime too",
        )


def _shape_problems(inputs: dict[str, Any], shapes: Any) -> Iterator[Problem]:
    if not isinstance(shapes, dict):
        return
    specs, complete = [], True
    for name, value in inputs.items():
        text = value.get("type") if isinstance(value, dict) else getattr(value, "type", value)
        try:
            specs.append(TensorSpec.parse(name, text if isinstance(text, str) else ""))
        except RecipeError:  # told where the type is
            complete = False
    for problem in check_shapes(specs, shapes):
        # The broken input might use what seems unused.
        if complete or problem.path == ("shapes",):
            yield problem
