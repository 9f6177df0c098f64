"""The recipe's settings besides the model: inputs, shapes, passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, TypeAlias

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

import graphs
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.errors import RecipeError
from toolkit.recipe.base import RecipeModel, invalid
from toolkit.recipe.problems import Problem, nearest, shown

__all__ = [
    "Bound",
    "Input",
    "PassSettings",
    "Range",
    "Seed",
    "TensorType",
    "Whole",
]

# TensorRT's dimensions are 32 bits wide on some targets, and no tensor of ours is longer.
MAX_DIM = 2**31 - 1

Whole: TypeAlias = Annotated[int, Field(strict=True)]
Seed: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Bound: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]

_TYPE_SCHEMA = {
    "type": "string",
    "pattern": r"^\s*\w+\s*\[[^\[\]]*\]\s*$",
    "examples": ["int64[batch, sequence]", "float32[batch, 1, 28, 28]"],
}


def _tensor_type(value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(
            f"found {shown(value)}, wanted dtype[dim, dim]", "for example int64[batch, sequence]"
        )
    try:
        return str(TensorSpec.parse("it", value))
    except RecipeError as error:
        # The path names the input already.
        found = error.message.removeprefix("input 'it' ")
        raise invalid(found, error.hint) from error


TensorType: TypeAlias = Annotated[
    str,
    PlainValidator(_tensor_type),
    WithJsonSchema(_TYPE_SCHEMA),
    Field(description="dtype[dim, dim]; a dim is a size or a name ranged under shapes."),
]


class Input(RecipeModel):
    """One input of the model: ``dtype[dim, dim]`` as text, or a mapping that says more."""

    type: TensorType
    low: Annotated[
        Bound | None, Field(description="Smallest valid value, inclusive. Default: unbounded.")
    ] = None
    high: Annotated[
        Bound | None, Field(description="Largest valid value, exclusive: a vocabulary's size.")
    ] = None
    mask: Annotated[
        bool, Field(strict=True, description="Whether this is an attention mask of 0 and 1.")
    ] = False

    @classmethod
    def expand(cls, data: Any) -> Any:
        """Text is the type alone."""
        return {"type": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Input:
        if self.mask and (self.low is not None or self.high is not None):
            raise invalid("a mask holds 0 and 1, so it takes neither low nor high")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise invalid(f"low {self.low:g} is not below high {self.high:g}")
        return self

    @model_serializer
    def _short_if_plain(self) -> str | dict[str, Any]:
        stated = {"low": self.low, "high": self.high, "mask": self.mask or None}
        kept = {key: value for key, value in stated.items() if value is not None}
        return {"type": self.type, **kept} if kept else self.type

    def spec(self, name: str) -> TensorSpec:
        """The tensor specification under its name."""
        spec = TensorSpec.parse(name, self.type, low=self.low, high=self.high)
        return replace(spec, role="mask") if self.mask else spec

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(schema))
        description = mapping.pop("description", "")
        return {"anyOf": [_TYPE_SCHEMA, mapping], "title": "Input", "description": description}


def _range(value: Any) -> DimRange:
    if isinstance(value, DimRange):
        return value
    sizes = [value] * 3 if type(value) is int else value
    if (
        not isinstance(sizes, list)
        or len(sizes) != 3
        or any(type(size) is not int for size in sizes)
    ):
        found = f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else shown(value)
        raise invalid(f"found {found}, wanted [min, opt, max] or one whole number")
    if not 0 <= sizes[0] <= sizes[1] <= sizes[2] <= MAX_DIM or not sizes[2]:
        found = shown(value) if type(value) is int else str(value)
        raise invalid(f"found {found}, wanted 1 <= min <= opt <= max <= {MAX_DIM}")
    return DimRange(*sizes)


def _written_range(value: DimRange) -> int | list[int]:
    return value.opt if value.fixed else [value.min, value.opt, value.max]


_SIZE_SCHEMA = {"type": "integer", "minimum": 1, "maximum": MAX_DIM}
Range: TypeAlias = Annotated[
    DimRange,
    PlainValidator(_range),
    PlainSerializer(_written_range),
    WithJsonSchema(
        {
            "anyOf": [
                _SIZE_SCHEMA,
                # 0 is for lengths named past_…, which a schema cannot tell here
                {
                    "type": "array",
                    "items": {**_SIZE_SCHEMA, "minimum": 0},
                    "minItems": 3,
                    "maxItems": 3,
                },
            ],
            "description": "[min, opt, max], or one number for a fixed size.",
        }
    ),
]


def _pass_name(value: Any) -> str:
    # Looked up here, because the passes load onnx and most recipes name none.
    passes = graphs.PASSES
    if value == "mixed_precision":
        hint = "say export: {precision: mixed_float16}, so that the proof knows of it"
        raise invalid("mixed_precision is no pass to list here", hint)
    if not isinstance(value, str) or value not in passes:
        hint = nearest(value, passes) if isinstance(value, str) else ""
        raise invalid(f"found {shown(value)}, wanted the name of a pass", hint)
    return value


class PassSettings(RecipeModel):
    """One rewrite of the fused graph."""

    name: Annotated[
        str,
        PlainValidator(_pass_name),
        WithJsonSchema({"type": "string", "minLength": 1}),
        Field(description="The pass to run; passes run in the order of the list."),
    ]
    threshold: Annotated[
        float | None,
        Field(
            strict=True,
            allow_inf_nan=False,
            ge=0,
            lt=1,
            description="skip_gated_members: the weight up to which a member does not run. "
            "Default: 0, which is exact.",
        ),
    ] = None

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Options belong to passes that have them."""
        name = data.get("name")
        known = graphs.PASSES.get(name) if isinstance(name, str) else None
        for option in set(data) & set(cls.model_fields) - {"name"} if known else ():
            if option not in {field.name for field in fields(known)}:  # type: ignore[arg-type]
                yield Problem((option,), f"the pass {name} has no such option")

    def options(self) -> dict[str, float]:
        """The options that the recipe states."""
        stated = self.model_dump(exclude={"name"})
        return {name: value for name, value in stated.items() if value is not None}
