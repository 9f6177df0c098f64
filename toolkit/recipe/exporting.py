"""The recipe's settings of the export: opset, precision, experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.recipe.base import RecipeModel
from toolkit.recipe.paths import FilePath
from toolkit.recipe.problems import Problem, shown

__all__ = ["ExportSettings"]


class ExportSettings(RecipeModel):
    """How PyTorch models become ONNX."""

    opset: Annotated[
        int, Field(strict=True, ge=18, le=23, description="ONNX operator set version of the graph.")
    ] = 20
    precision: Annotated[
        Literal[
            "float32",
            "float16",
            "bfloat16",
            "mixed_float16",
            "mixed_bfloat16",
            "int8",
            "int8_dynamic",
            "int8_weights",
            "int4_weights",
            "fp8",
        ],
        Field(
            description="Type of weights and arithmetic; inputs, outputs and interpolation "
            "keep theirs. The mixed ones keep norms, softmax and other delicate nodes in float32; "
            "the last five quantise products, and are held to a budget of their own."
        ),
    ] = "float32"
    keep_float32: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(
            description="For mixed and low precision: patterns of node names that stay in float32."
        ),
    ] = ()
    io: Annotated[
        Literal["keep", "half"],
        Field(description="For mixed precision: half lowers inputs and outputs of the graph too."),
    ] = "keep"

    experts: Annotated[
        Literal["auto", "conditionals", "rows", "dense", "batched", "native", "keep"],
        Field(
            description="How layers of experts run. auto measures on this machine; keep leaves "
            "the exported operators, which gather weights for every token."
        ),
    ] = "auto"

    silent_neurons: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="Whether, at few tokens, a down projection after a ReLU reads only the "
            "rows of active neurons. auto measures on this machine and keeps what is faster."
        ),
    ] = "auto"

    calibration: Annotated[
        FilePath | None,
        Field(
            description="For int8 and fp8: real inputs that ranges of activations are taken from, "
            "as parity.inputs, which is the default."
        ),
    ] = None

    @property
    def low(self) -> Literal["int8", "int8_dynamic", "int8_weights", "int4_weights", "fp8"] | None:
        """What a quantiser makes of the float32 graph; None if it stays in floats."""
        if self.precision in {"int8", "int8_dynamic", "int8_weights", "int4_weights", "fp8"}:
            return self.precision
        return None

    @property
    def mixed(self) -> bool:
        """Whether a pass lowers a graph that was exported in float32."""
        return self.precision.startswith("mixed_")

    @property
    def arithmetic(self) -> Literal["float32", "float16", "bfloat16"]:
        """The lowest precision that the graph computes in: what its proof is held against."""
        if self.precision in {"mixed_float16", "float16"}:
            return "float16"
        return "bfloat16" if self.precision.endswith("bfloat16") else "float32"

    @property
    def exported(self) -> Literal["float32", "float16", "bfloat16"]:
        """The precision in which every model leaves PyTorch."""
        return "float32" if self.mixed else self.arithmetic

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Settings of mixed precision say nothing about another."""
        precision = data.get("precision", "float32")
        text = precision if isinstance(precision, str) else ""
        if data.get("calibration") is not None and text not in {"int8", "fp8"}:
            hint = "precision: int8 takes ranges of activations from it"
            yield Problem(("calibration",), f"needs int8 or fp8, found {shown(precision)}", hint)
        if text.startswith("mixed"):
            return
        low = text.startswith(("int", "fp8"))
        for key, default in (("keep_float32", []), ("io", "keep"))[low:]:
            if data.get(key, default) not in (default, tuple(default)):
                hint = "precision: mixed_float16 keeps some nodes in float32"
                yield Problem((key,), f"needs mixed precision, found {shown(precision)}", hint)
