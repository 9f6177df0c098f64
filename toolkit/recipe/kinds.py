"""The kinds of models that hold no models of their own, and what every kind has in common."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from toolkit.checkpoint import PICKLE_SUFFIXES, conversion_command
from toolkit.errors import MergeError
from toolkit.recipe.base import RecipeModel, context_of, invalid
from toolkit.recipe.paths import FilePath, FolderPath
from toolkit.recipe.problems import Problem, shown

__all__ = [
    "BUILT_IN_FACTORIES",
    "FACTORY_SCHEMA",
    "RESERVED_NAMES",
    "CheckpointModel",
    "CheckpointSettings",
    "FactoryModel",
    "MergeModel",
    "MoeModel",
    "NamedModel",
    "OnnxFile",
    "Scalar",
    "TensorName",
    "factory_name",
    "safetensors_only",
    "sanitised",
    "scalar",
]

_FACTORY = re.compile(r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$")
FACTORY_SCHEMA: dict[str, Any] = {"type": "string", "pattern": _FACTORY.pattern}
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
# The fused graph calls its own values so.
RESERVED_NAMES = ("interpolation",)

# Callables of this package: running them needs no permission.
BUILT_IN_FACTORIES = frozenset(
    f"toolkit.gates:{name}" for name in ("combiner", "features", "last_token", "tokens")
)

Scalar: TypeAlias = bool | int | float | str | None
TensorName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"found {shown(value)}, wanted text")
    if value and not _NAME.match(value):
        raise invalid(
            f"found {shown(value)}, wanted letters, digits, '_', '.' and '-'",
            f"for example {sanitised(value)!r}",
        )
    if value in RESERVED_NAMES or len(value) > 100:
        raise invalid(f"found {shown(value)}, which is reserved or longer than 100 characters")
    return value


def sanitised(text: str) -> str:
    """``text`` with everything but letters, digits, ``_``, ``.`` and ``-`` replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip(".-")[:80] or "model"


def factory_name(value: Any, info: ValidationInfo) -> str:
    """``package.module:callable``, checked, and refused where code is not allowed."""
    if not isinstance(value, str) or not _FACTORY.match(value):
        raise invalid(
            f"found {shown(value)}, wanted package.module:callable",
            "the callable returns the torch.nn.Module that the weights belong to",
        )
    context = context_of(info)
    if value in BUILT_IN_FACTORIES:
        return value
    if context is not None and not context.allow_code:
        raise invalid(
            f"{value} is Python code that the recipe would run, which was not allowed",
            "read that code, and give --allow-code if you trust it",
        )
    return value


def _merge(value: Any) -> dict[str, Any]:
    """The merge stage's own grammar, checked by it; loaded only where a recipe merges."""
    from toolkit.merge import from_mapping  # noqa: PLC0415  (compiled kernels load with it)

    if not isinstance(value, dict):
        raise invalid(f"found {shown(value)}, wanted a merge in mergekit's grammar")
    try:
        from_mapping(value)
    except MergeError as error:
        raise invalid(error.message.removeprefix("config: "), error.hint) from error
    return value


def _moe(value: Any) -> dict[str, Any]:
    """The same for mixtures of experts."""
    from toolkit.merge.moe import from_mapping  # noqa: PLC0415  (compiled kernels load with it)

    if not isinstance(value, dict):
        raise invalid(f"found {shown(value)}, wanted a mixture in mergekit-moe's grammar")
    try:
        from_mapping(value)
    except MergeError as error:
        raise invalid(error.message.removeprefix("config: "), error.hint) from error
    return value


def scalar(value: Any) -> Scalar:
    """A keyword argument of a callable, checked."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise invalid(f"found {shown(value)}, wanted true, false, a finite number, text or null")


def safetensors_only(value: Any, info: ValidationInfo) -> Any:
    """Refuse pickles by name before anything is opened; their content is checked when opened."""
    if not isinstance(value, str) or not value.endswith(tuple(PICKLE_SUFFIXES)):
        return value
    context = context_of(info)
    source = Path(value) if context is None else context.root / value
    command = conversion_command([source], source.with_suffix(".safetensors"))
    raise invalid(
        f"{shown(value)} is a pickle, and loading a pickle runs whatever code it holds; "
        "safetensors was wanted",
        f"if you trust where it comes from, convert it: {command}",
    )


class NamedModel(RecipeModel):
    """What every kind of model may have besides its kind."""

    name: Annotated[
        str,
        PlainValidator(_name),
        WithJsonSchema({"type": "string", "pattern": _NAME.pattern}),
        Field(
            description="Name in the fused graph, in reports and in errors. "
            "Default: from the folder, file or callable."
        ),
    ] = ""
    rename: Annotated[
        dict[TensorName, TensorName],
        Field(
            default_factory=dict,
            description="From the model's own input names to the names shared with others.",
        ),
    ]

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Two inputs must not be joined by giving both one name."""
        rename = data.get("rename")
        seen: dict[str, str] = {}
        for own, shared in rename.items() if isinstance(rename, dict) else ():
            if isinstance(shared, str) and shared in seen:
                yield Problem(
                    ("rename", own),
                    f"gives {shown(own)} the name {shown(shared)}, which {shown(seen[shared])} has",
                )
            elif isinstance(shared, str):
                seen[shared] = own


class CheckpointSettings(NamedModel):
    """How a Hugging Face checkpoint is used."""

    task: Annotated[
        Literal[
            "auto",
            "sequence-classification",
            "token-classification",
            "masked-lm",
            "causal-lm",
            "seq2seq-lm",
            "sentence-embedding",
        ],
        Field(description="Which head to load; auto reads the architecture from config.json."),
    ] = "auto"
    cache: Annotated[
        bool,
        Field(strict=True, description="Causal models: with key-value caches as in- and outputs."),
    ] = False


class CheckpointModel(CheckpointSettings):
    """A Hugging Face model folder, loaded through transformers."""

    checkpoint: Annotated[
        FolderPath, Field(description="Folder with config.json and safetensors weights.")
    ]


class FactoryModel(NamedModel):
    """A torch.nn.Module built by Python code of your own, which needs --allow-code."""

    factory: Annotated[
        str,
        PlainValidator(factory_name),
        WithJsonSchema(FACTORY_SCHEMA),
        Field(description="package.module:callable that returns the module."),
    ]
    weights: Annotated[
        FilePath,
        BeforeValidator(safetensors_only),
        Field(description="safetensors file with the module's state dict."),
    ]
    kwargs: Annotated[
        dict[str, Annotated[Scalar, PlainValidator(scalar)]],
        Field(default_factory=dict, description="Keyword arguments of the callable: scalars."),
    ]
    outputs: Annotated[
        tuple[TensorName, ...],
        Field(
            description="Names for what forward returns, in order.",
            json_schema_extra={"minItems": 1},
        ),
    ] = ("logits",)

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """There is an output, and output names differ."""
        yield from super().cross_checks(data)
        outputs = data.get("outputs")
        if not isinstance(outputs, list):
            return
        if not outputs:
            yield Problem(("outputs",), "found an empty list, wanted at least one name")
        for i, output in enumerate(outputs):
            if isinstance(output, str) and output in outputs[:i]:
                yield Problem(("outputs", i), f"the output name {shown(output)} is given twice")


class OnnxFile(NamedModel):
    """An ONNX file made elsewhere."""

    onnx: Annotated[FilePath, Field(description="The .onnx file; external data beside it.")]


class MergeModel(CheckpointSettings):
    """Checkpoints of one architecture merged into one; the grammar is mergekit's, unchanged."""

    merge: Annotated[
        dict[str, Any],
        PlainValidator(_merge),
        WithJsonSchema({"type": "object", "required": ["merge_method"]}),
        Field(description="A merge in mergekit's grammar: merge_method, models, parameters, …"),
    ]


class MoeModel(CheckpointSettings):
    """Fine-tunes of one dense model as experts of a sparse one; the grammar is mergekit-moe's."""

    moe: Annotated[
        dict[str, Any],
        PlainValidator(_moe),
        WithJsonSchema({"type": "object", "required": ["base_model", "experts"]}),
        Field(description="A mixture in mergekit-moe's grammar: base_model, experts, gate_mode, …"),
    ]
