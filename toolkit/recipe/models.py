"""The model kinds of a recipe: what a member is made from. ``ensemble`` and ``stack`` nest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag

from toolkit.recipe.base import TAGS, RecipeModel, invalid
from toolkit.recipe.distilling import (
    CacheSpec,
    DataSpec,
    ObjectiveSpec,
    StudentSpec,
    TrainingSpec,
)
from toolkit.recipe.kinds import (
    CheckpointModel,
    CheckpointSettings,
    FactoryModel,
    MergeModel,
    MoeModel,
    NamedModel,
    OnnxFile,
    TensorName,
)
from toolkit.recipe.paths import FilePath
from toolkit.recipe.problems import Problem, nearest, shown
from toolkit.recipe.stacks import Feed, stack_problems
from toolkit.recipe.weights import MAX_WEIGHT, weight_problems

__all__ = [
    "KINDS",
    "MAX_MODEL_DEPTH",
    "DistillModel",
    "DistillSpec",
    "EnsembleModel",
    "EnsembleSpec",
    "GateSpec",
    "Model",
    "SoupModel",
    "SoupSpec",
    "StackModel",
    "StackSpec",
]

MAX_MODEL_DEPTH = 16
KINDS = tuple(TAGS)

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_WEIGHT)]


class GateSpec(RecipeModel):
    """A model that gives every row of the combined output its own weights."""

    model: Annotated[
        Model,
        Field(
            description="A model of any kind whose output holds scores [batch, members] or "
            "[batch, sequence, members]. It sees the members' inputs."
        ),
    ]
    output: Annotated[
        TensorName | None,
        Field(
            description="The output with the scores. Default: logits, weights, scores, or the "
            "only one."
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            description="How many members of a row have a weight above 0; of equal scores the "
            "first. Default: all.",
        ),
    ] = None
    activation: Annotated[
        Literal["softmax", "softplus"],
        Field(description="How scores become weights; softplus (log_linear) need not sum to 1."),
    ] = "softmax"


class EnsembleSpec(RecipeModel):
    """Members whose common output is combined into one."""

    combine: Annotated[
        Literal["linear", "log_linear"],
        Field(
            description="linear: weighted mean of probabilities. "
            "log_linear: weighted sum of logits, normalised."
        ),
    ]
    space: Annotated[
        Literal["logits", "probabilities", "values"],
        Field(
            description="What the combined output holds: logits or probabilities over the last "
            "axis, or plain values (linear only)."
        ),
    ] = "logits"
    output: Annotated[
        TensorName | None,
        Field(description="The output to combine; may be left out when members have just one."),
    ] = None
    weights: Annotated[
        tuple[Number, ...],
        Field(description="One per member; linear weights sum to 1. Default: uniform."),
    ] = ()
    gate: Annotated[
        GateSpec | None,
        Field(description="A model that gives the weights, in place of constant ones."),
    ] = None
    members: Annotated[
        tuple[Model, ...],
        Field(description="Models of any kind.", json_schema_extra={"minItems": 1}),
    ]

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Weights or gate fit members and combination; log_linear needs distributions."""
        combine = data.get("combine")
        if combine == "log_linear" and data.get("space") == "values":
            yield Problem(
                ("space",),
                "log_linear of plain values has no meaning, wanted logits or probabilities",
                "use combine: linear for a weighted mean of values",
            )
        weights, members = data.get("weights"), data.get("members")
        if isinstance(weights, list):
            count = len(members) if isinstance(members, list) else len(weights)
            yield from weight_problems(weights, count, combine)
        yield from _gate_problems(data)
        if isinstance(members, list):
            yield from _member_problems(members, data.get("space", "logits"))


class SoupSpec(RecipeModel):
    """Fine-tunes of one checkpoint, averaged; which ones is decided by a score on held-out data."""

    members: Annotated[
        tuple[Model, ...], Field(description="Checkpoints, or factories of one callable.")
    ]
    kind: Annotated[
        Literal["greedy", "uniform"],
        Field(description="greedy keeps a member if the score does not fall; uniform keeps all."),
    ] = "greedy"
    accuracy: Annotated[
        FilePath | None, Field(description="Score by accuracy: .npz or .safetensors with labels.")
    ] = None
    perplexity: Annotated[
        FilePath | None, Field(description="Score by perplexity: a text file or .jsonl.")
    ] = None

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """One score; two members or more of one kind, which is a checkpoint or a factory."""
        scores = [key for key in ("accuracy", "perplexity") if data.get(key) is not None]
        if len(scores) != 1:
            found = " and ".join(scores) or "no score"
            yield Problem((), f"found {found}, wanted either accuracy or perplexity")
        members = data.get("members")
        if not isinstance(members, list):
            return
        if len(members) < 2:
            yield Problem(("members",), f"found {len(members)}, wanted two or more")
        for i, member in enumerate(members):
            if isinstance(member, dict) and not {"checkpoint", "factory"} & set(member):
                yield Problem(("members", i), "wanted a checkpoint or a factory")


class SoupModel(NamedModel):
    """A model soup (Wortsman et al. 2022): several fine-tunes as one model of the same size."""

    soup: Annotated[SoupSpec, Field(description="Fine-tunes and how they are scored.")]


class DistillSpec(RecipeModel):
    """A student, and what it is taught by."""

    student: Annotated[StudentSpec, Field(description="What is taught, and where it begins.")]
    teachers: Annotated[
        Model, Field(description="A model of any kind; several teachers are an ensemble.")
    ]
    data: Annotated[DataSpec, Field(description="What it learns from.")]
    objective: Annotated[ObjectiveSpec, Field(description="What it is to minimise.")] = (
        ObjectiveSpec()
    )
    training: Annotated[TrainingSpec, Field(description="How it is trained.")] = TrainingSpec()
    cache: Annotated[
        CacheSpec, Field(description="What is kept of the teachers' words on disk.")
    ] = CacheSpec()


class DistillModel(CheckpointSettings):
    """A student that is taught by other models, and is one model afterwards."""

    distill: Annotated[DistillSpec, Field(description="Student, teachers, data, objective.")]


class EnsembleModel(NamedModel):
    """Several models as one."""

    ensemble: Annotated[EnsembleSpec, Field(description="Members and how they are combined.")]


class StackSpec(RecipeModel):
    """Models in order, where outputs of one are inputs of later ones."""

    stages: Annotated[
        tuple[Model, ...],
        Field(
            description="Models of any kind; the last one gives the outputs of the whole.",
            json_schema_extra={"minItems": 2},
        ),
    ]
    feeds: Annotated[
        dict[TensorName, Feed],
        Field(
            description="Inputs of later stages, by name, that are outputs of earlier ones.",
            json_schema_extra={"minProperties": 1},
        ),
    ]

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """There are stages to feed, and feeds."""
        yield from stack_problems(data)


class StackModel(NamedModel):
    """Models on top of others in one graph (stacked generalisation, Wolpert 1992)."""

    stack: Annotated[StackSpec, Field(description="Stages and what is fed from one to another.")]


def _gate_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    gate, members = data.get("gate"), data.get("members")
    if gate is None:
        return
    if data.get("weights"):
        yield Problem(("weights",), "found weights beside a gate, wanted one of them")
    if not isinstance(gate, dict):
        return
    top_k, count = gate.get("top_k"), len(members) if isinstance(members, list) else None
    if type(top_k) is int and count is not None and top_k > count:
        yield Problem(("gate", "top_k"), f"found {top_k} for {count} members")
    if gate.get("activation") == "softplus" and data.get("combine") == "linear":
        yield Problem(
            ("gate", "activation"),
            "softplus weights need not sum to 1, which linear needs",
            "use softmax, or combine: log_linear",
        )


def _member_problems(members: list[Any], space: Any) -> Iterator[Problem]:
    if not members:
        yield Problem(("members",), "found an empty list, wanted at least one model")
    for i, member in enumerate(members):
        inner = member.get("ensemble") if isinstance(member, dict) else None
        if isinstance(inner, dict) and inner.get("space", "logits") != space:
            yield Problem(
                ("members", i, "ensemble", "space"),
                f"found {shown(inner.get('space', 'logits'))} inside an ensemble of "
                f"{shown(space)}, wanted the same: an inner ensemble gives what it combines",
            )


def _kind_tag(value: Any) -> str | None:
    """The union's tag, from a mapping's keys or a model's class."""
    if isinstance(value, RecipeModel):
        return next((TAGS[kind] for kind in KINDS if hasattr(value, kind)), None)
    kinds = [kind for kind in KINDS if kind in value] if isinstance(value, dict) else []
    return TAGS[kinds[0]] if len(kinds) == 1 else None


def _one_kind(value: Any) -> Any:
    if _kind_tag(value) is not None:
        return value
    wanted = f"exactly one of {', '.join(KINDS)}"
    if not isinstance(value, dict):
        raise invalid(f"found {shown(value)}, wanted a mapping with {wanted}")
    kinds = [kind for kind in KINDS if kind in value]
    if kinds:
        raise invalid(f"found the kinds {' and '.join(kinds)} together, wanted {wanted}")
    hints = (nearest(str(key), KINDS) for key in value)
    hint = next((hint for hint in hints if hint.startswith("did")), "")
    raise invalid(f"found {shown(value)}, wanted {wanted}", hint)


Model: TypeAlias = Annotated[
    Annotated[CheckpointModel, Tag("<checkpoint>")]
    | Annotated[FactoryModel, Tag("<factory>")]
    | Annotated[OnnxFile, Tag("<onnx>")]
    | Annotated[MergeModel, Tag("<merge>")]
    | Annotated[MoeModel, Tag("<moe>")]
    | Annotated[SoupModel, Tag("<soup>")]
    | Annotated[DistillModel, Tag("<distill>")]
    | Annotated[EnsembleModel, Tag("<ensemble>")]
    | Annotated[StackModel, Tag("<stack>")],
    Discriminator(_kind_tag),
    BeforeValidator(_one_kind),
]

GateSpec.model_rebuild()
EnsembleSpec.model_rebuild()
SoupSpec.model_rebuild()
SoupModel.model_rebuild()
DistillSpec.model_rebuild()
DistillModel.model_rebuild()
EnsembleModel.model_rebuild()
StackSpec.model_rebuild()
StackModel.model_rebuild()
