"""The model kinds of a recipe: what a member is made from. Kinds nest through ``ensemble``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag

from toolkit.recipe.base import TAGS, RecipeModel, invalid
from toolkit.recipe.kinds import (
    CheckpointModel,
    FactoryModel,
    MergeModel,
    NamedModel,
    OnnxFile,
    TensorName,
)
from toolkit.recipe.paths import FilePath
from toolkit.recipe.problems import Problem, nearest, shown
from toolkit.recipe.weights import MAX_WEIGHT, weight_problems

__all__ = [
    "KINDS",
    "MAX_MODEL_DEPTH",
    "EnsembleModel",
    "EnsembleSpec",
    "Model",
    "SoupModel",
    "SoupSpec",
]

MAX_MODEL_DEPTH = 16
KINDS = tuple(TAGS)

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_WEIGHT)]


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
    members: Annotated[
        tuple[Model, ...],
        Field(description="Models of any kind.", json_schema_extra={"minItems": 1}),
    ]

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Weights fit members and combination; log_linear needs distributions."""
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


class EnsembleModel(NamedModel):
    """Several models as one."""

    ensemble: Annotated[EnsembleSpec, Field(description="Members and how they are combined.")]


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
    | Annotated[SoupModel, Tag("<soup>")]
    | Annotated[EnsembleModel, Tag("<ensemble>")],
    Discriminator(_kind_tag),
    BeforeValidator(_one_kind),
]

EnsembleSpec.model_rebuild()
SoupSpec.model_rebuild()
SoupModel.model_rebuild()
EnsembleModel.model_rebuild()
