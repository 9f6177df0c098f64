"""The settings of a distillation, besides its teachers: student, data, objective, training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema

from toolkit.recipe.base import RecipeModel, invalid
from toolkit.recipe.kinds import (
    FACTORY_SCHEMA,
    Scalar,
    TensorName,
    factory_name,
    safetensors_only,
    scalar,
)
from toolkit.recipe.paths import DataPath, FilePath, FolderPath
from toolkit.recipe.problems import Problem, shown

__all__ = [
    "CacheSpec",
    "DataSpec",
    "LayersSpec",
    "MatchSpec",
    "ObjectiveSpec",
    "StudentSpec",
    "TrainingSpec",
]

Count: TypeAlias = Annotated[int, Field(strict=True, ge=1)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Key: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]

_STARTS = ("checkpoint", "config", "factory")


def _config(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise invalid(
            f"found {shown(value)}, wanted a configuration with model_type",
            "for example {model_type: llama, hidden_size: 64, num_hidden_layers: 2}",
        )
    return value


class LayersSpec(RecipeModel):
    """Which layers of a checkpoint a student keeps."""

    first: Annotated[Count | None, Field(description="The first so many.")] = None
    every: Annotated[Count | None, Field(description="Every n-th, beginning with the first.")] = (
        None
    )
    numbers: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=0)], ...],
        Field(description="These, counted from 0, in order."),
    ] = ()

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """One of the three is given."""
        given = [key for key in ("first", "every", "numbers") if data.get(key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            yield Problem((), f"found {found}, wanted one of first, every and numbers")


class StudentSpec(RecipeModel):
    """What is taught: where its weights begin, and its tokenizer."""

    checkpoint: Annotated[
        FolderPath | None, Field(description="Begins as this Hugging Face folder.")
    ] = None
    layers: Annotated[
        LayersSpec | None, Field(description="Of the checkpoint, the layers that are kept.")
    ] = None
    config: Annotated[
        Annotated[
            dict[str, Any],
            PlainValidator(_config),
            WithJsonSchema({"type": "object", "required": ["model_type"]}),
        ]
        | None,
        Field(
            description="Begins at random: model_type and other keys of a config.json. "
            "vocab_size and special tokens are the tokenizer's unless given."
        ),
    ] = None
    factory: Annotated[
        Annotated[str, PlainValidator(factory_name), WithJsonSchema(FACTORY_SCHEMA)] | None,
        Field(description="Begins as package.module:callable makes it; needs --allow-code."),
    ] = None
    weights: Annotated[
        Annotated[FilePath, BeforeValidator(safetensors_only)] | None,
        Field(description="Of a factory: the weights it begins with."),
    ] = None
    kwargs: Annotated[
        dict[str, Annotated[Scalar, PlainValidator(scalar)]],
        Field(default_factory=dict, description="Of a factory: arguments of the callable."),
    ]
    outputs: Annotated[
        tuple[TensorName, ...],
        Field(description="Of a factory: names for what forward returns, in order."),
    ] = ("logits",)
    tokenizer: Annotated[
        FolderPath | None,
        Field(description="A folder with tokenizer.json, such as a teacher's. Default: its own."),
    ] = None

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """It begins somewhere, and keys belong to how."""
        starts = [key for key in _STARTS if data.get(key) is not None]
        if len(starts) != 1:
            found = " and ".join(starts) or "none of them"
            yield Problem((), f"found {found}, wanted one of {', '.join(_STARTS)}")
        owners = {"layers": "checkpoint", "weights": "factory", "kwargs": "factory",
                  "outputs": "factory"}  # fmt: skip
        for key, owner in owners.items():
            if data.get(key) not in (None, {}, [], ("logits",), ["logits"]) and owner not in starts:
                yield Problem((key,), f"belongs to a {owner}, which this student is not")


class DataSpec(RecipeModel):
    """What the student learns from."""

    path: Annotated[
        DataPath,
        Field(description=".jsonl, .txt, .npz, .safetensors, or a folder that datasets wrote."),
    ]
    held_out: Annotated[
        DataPath | None, Field(description="What judges it. Default: a share of path.")
    ] = None
    share: Annotated[
        Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)],
        Field(description="Of path, for judging, drawn by the seed; 0 for none."),
    ] = 0.1
    length: Annotated[Count, Field(description="Most tokens in a row.")] = 128
    packed: Annotated[
        bool,
        Field(
            strict=True,
            description="Language models: texts one after the other in blocks of length; false "
            "for a row for each text.",
        ),
    ] = True
    text: Annotated[Key, Field(description="The key of texts.")] = "text"
    label: Annotated[Key, Field(description="The key of classes.")] = "label"
    reference: Annotated[Key, Field(description="The key of what a decoder is to say.")] = "target"
    masked: Annotated[
        Share, Field(description="Masked language models: share of the tokens to guess.")
    ] = 0.15


class MatchSpec(RecipeModel):
    """Tensors inside student and teachers that are brought together."""

    kind: Annotated[
        Literal["mse", "cosine", "attention"], Field(description="How far apart they are.")
    ] = "mse"
    student: Annotated[
        TensorName,
        Field(description="hidden.{i}, attention.{i}, an output or a module's path."),
    ]
    teacher: Annotated[
        TensorName, Field(description="Likewise; of a member with its name and a slash before it.")
    ]
    weight: Annotated[Positive, Field(description="In the sum of all parts of the loss.")] = 1.0


class ObjectiveSpec(RecipeModel):
    """What the student is to minimise."""

    level: Annotated[
        Literal["word", "sequence", "interpolation"],
        Field(
            description="word: the teachers' distribution of every row. sequence: their beam "
            "search's output in place of the data's. interpolation: the beam closest to the data's."
        ),
    ] = "word"
    target: Annotated[
        Literal["mixture", "mean_of_kls", "mean_of_logits"],
        Field(description="What several teachers are one target as."),
    ] = "mixture"
    divergence: Annotated[
        Literal["forward_kl", "reverse_kl", "jsd"],
        Field(description="Between the teachers' distribution and the student's."),
    ] = "forward_kl"
    beta: Annotated[
        Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)],
        Field(description="Of jsd, the generalised Jensen-Shannon divergence."),
    ] = 0.5
    temperature: Annotated[
        Positive, Field(description="Of both distributions; the loss is times its square.")
    ] = 1.0
    hard: Annotated[
        Share | None,
        Field(
            description="Share of the labels' cross-entropy; 1 asks no teacher. Default: 0, with "
            "texts that teachers wrote 1."
        ),
    ] = None
    match: Annotated[
        tuple[MatchSpec, ...], Field(description="Hidden states, attention, embeddings.")
    ] = ()
    beams: Annotated[Count, Field(description="Of the beam search of sequences.")] = 4
    prompt: Annotated[
        Count, Field(description="Causal models: tokens of a row that are gone on from.")
    ] = 16
    new_tokens: Annotated[Count, Field(description="Most tokens that are written.")] = 64
    on_policy: Annotated[
        Share, Field(description="Share of the steps on texts that the student goes on with.")
    ] = 0.0


class CacheSpec(RecipeModel):
    """How much of the teachers' distributions is kept on disk where a cache is asked for."""

    top_k: Annotated[Count, Field(description="Most classes of a row.")] = 64
    top_p: Annotated[
        Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)],
        Field(description="Of those, the likeliest that together have this mass."),
    ] = 1.0
    dtype: Annotated[
        Literal["float32", "float16"], Field(description="Of log probabilities on disk.")
    ] = "float32"


class TrainingSpec(RecipeModel):
    """How the student is trained."""

    steps: Annotated[Count | None, Field(description="Of the optimizer, in place of epochs.")] = (
        None
    )
    epochs: Annotated[Positive, Field(description="Passes over the data.")] = 3.0
    batch: Annotated[Count, Field(description="Rows of a step, over all processes.")] = 32
    part: Annotated[
        Count | None,
        Field(description="Most rows at a time on one process; gradients are accumulated."),
    ] = None
    rate: Annotated[Positive, Field(description="The highest learning rate of AdamW.")] = 1e-3
    weight_decay: Annotated[NotNegative, Field(description="Of matrices.")] = 0.01
    schedule: Annotated[
        Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"],
        Field(description="Of the learning rate, as transformers calls them."),
    ] = "cosine"
    warmup: Annotated[Share, Field(description="Share of the steps in which the rate rises.")] = (
        0.05
    )
    clip: Annotated[NotNegative, Field(description="Largest norm of the gradient; 0: any.")] = 1.0
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Field(description="Of the arithmetic; weights stay in float32. float16 needs a GPU."),
    ] = "float32"
    evaluate: Annotated[
        Count | None,
        Field(description="Steps between two looks at held-out rows. Default: a pass."),
    ] = None
    patience: Annotated[
        Count | None, Field(description="Looks without a better loss after which training stops.")
    ] = None
    checkpoint: Annotated[
        Count | None, Field(description="Steps between two checkpoints. Default: at every look.")
    ] = None
    keep_zeros: Annotated[
        bool,
        Field(strict=True, description="What is zero in the student's matrices stays zero."),
    ] = False
    device: Annotated[
        Literal["auto", "cpu"], Field(description="auto takes a GPU where there is one.")
    ] = "auto"
