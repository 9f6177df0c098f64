"""The feeds of a stack, and what must hold between them and its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from toolkit.artifacts import TensorSpec
from toolkit.recipe.base import RecipeModel, invalid
from toolkit.recipe.problems import Problem, shown
from toolkit.recipe.settings import TensorType

__all__ = ["Feed", "stack_problems"]


def _output(value: Any) -> str:
    if isinstance(value, str):
        stage, _, output = value.partition("/")
        if stage and output:
            return value
    raise invalid(f"found {shown(value)}, wanted stage/output", "for example a/logits")


class Feed(RecipeModel):
    """An output of a stage that later stages take as an input."""

    output: Annotated[
        str,
        PlainValidator(_output),
        WithJsonSchema({"type": "string", "pattern": "^[^/]+/.+$"}),
        Field(description="The name of an earlier stage, a slash, and which of its outputs."),
    ]
    type: TensorType

    @property
    def source(self) -> tuple[str, str]:
        """The stage's name and the output's."""
        stage, _, output = self.output.partition("/")
        return stage, output

    def spec(self, name: str) -> TensorSpec:
        """The feed as an input of later stages."""
        return TensorSpec.parse(name, self.type)


def stack_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Two stages or more, and something that is fed."""
    stages, feeds = data.get("stages"), data.get("feeds")
    if isinstance(stages, list) and len(stages) < 2:
        yield Problem(("stages",), f"found {len(stages)}, wanted two or more")
    if isinstance(feeds, dict) and not feeds:
        yield Problem(("feeds",), "found an empty mapping, wanted at least one feed")
