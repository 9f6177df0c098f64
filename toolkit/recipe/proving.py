"""The recipe's settings of the proof: inputs, time, bounds."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from toolkit.errors import RecipeError
from toolkit.recipe.base import RecipeModel, invalid
from toolkit.recipe.paths import FilePath
from toolkit.recipe.problems import shown
from toolkit.recipe.settings import Bound, Seed, Whole

__all__ = ["ParitySettings", "QuantisedSettings", "ToleranceSettings", "duration"]


def _seconds(value: Any) -> float:
    text = f"{value}s" if type(value) in {int, float} else value
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None or not 0 < float(match[1]) <= 1e6:
        raise invalid(f"found {shown(value)}, wanted a time such as 60s or 5m")
    return float(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smh])\s*$")
Seconds: TypeAlias = Annotated[
    float,
    PlainValidator(_seconds),
    PlainSerializer(lambda value: f"{value:g}s", return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[smh]\s*$"},
            ]
        }
    ),
]


def duration(text: str) -> float:
    """Seconds of ``60s``, ``5m`` or ``1h``.

    Raises:
        RecipeError: If it is none of these.
    """
    try:
        return _seconds(text)
    except PydanticCustomError as error:
        raise RecipeError(f"the budget is {text!r}, wanted a time such as 60s or 5m") from error


class ToleranceSettings(RecipeModel):
    """Tighter bounds of the proof; looser ones are refused. See docs/parity.md."""

    rms_ratio: Annotated[
        Bound | None, Field(ge=0, le=4, description="Error of a case over PyTorch's: rms.")
    ] = None
    max_ratio: Annotated[
        Bound | None, Field(ge=0, le=4, description="Error of a case over PyTorch's: largest.")
    ] = None
    max_relative: Annotated[
        Bound | None, Field(ge=0, le=1e-4, description="Largest error over the output's scale.")
    ] = None
    floor_ulps: Annotated[
        Bound | None, Field(ge=0, le=4, description="Error that always passes, in units of eps.")
    ] = None
    budget_rms: Annotated[
        Bound | None, Field(ge=0, le=2, description="Error of a class over PyTorch's: rms.")
    ] = None
    budget_p99: Annotated[
        Bound | None, Field(ge=0, le=2, description="The same for the 99th percentile.")
    ] = None
    budget_max: Annotated[
        Bound | None, Field(ge=0, le=4, description="The same for the largest error.")
    ] = None

    def stated(self) -> dict[str, float]:
        """The bounds that the recipe states."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class QuantisedSettings(RecipeModel):
    """How far low precision may change the answers; see docs/sparsity.md."""

    agreement: Annotated[
        Bound | None, Field(ge=0, le=1, description="Least share of choices that stay the same.")
    ] = None
    divergence: Annotated[
        Bound | None, Field(ge=0, description="Largest mean KL from the reference, in nats.")
    ] = None
    error: Annotated[
        Bound | None, Field(ge=0, description="Largest rms error of other outputs, relative.")
    ] = None

    def stated(self, precision: str) -> dict[str, float]:
        """The budget: what the recipe says, and defaults for the rest."""
        said = {name: value for name, value in self.model_dump().items() if value is not None}
        names = ("agreement", "divergence", "error")
        return {**dict(zip(names, _BUDGETS[precision], strict=True)), **said}


_BUDGETS = {
    "int8": (0.99, 0.02, 0.05),
    "int8_dynamic": (0.99, 0.02, 0.05),
    "int8_weights": (0.99, 0.01, 0.02),
    "int4_weights": (0.95, 0.1, 0.15),
    "fp8": (0.98, 0.05, 0.1),
}


class ParitySettings(RecipeModel):
    """How much proof is asked for."""

    cases: Annotated[Whole, Field(ge=1, le=100_000, description="Random inputs per run.")] = 32
    seed: Annotated[
        Seed | None, Field(description="Seed of the inputs. Default: the recipe's seed.")
    ] = None
    inputs: Annotated[
        FilePath | None,
        Field(description="Real inputs: arrays in .npz, or texts in .jsonl for the tokenizer."),
    ] = None
    tolerance: Annotated[
        ToleranceSettings, Field(description="Tighter bounds; looser ones are refused.")
    ] = ToleranceSettings()
    quantised: Annotated[
        QuantisedSettings,
        Field(description="The budget of low precision. Default: by export.precision."),
    ] = QuantisedSettings()
    budget: Annotated[
        Seconds | None,
        Field(description="Time for the proof, such as 60s. Default: as long as it takes."),
    ] = None
