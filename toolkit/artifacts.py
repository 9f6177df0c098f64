"""The few types that stages exchange: tensor specifications, dimension ranges, exported models."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import RecipeError

__all__ = [
    "DTYPES",
    "DimRange",
    "Engine",
    "OnnxModel",
    "Shapes",
    "TensorSpec",
    "corners",
    "span_of",
]

# Names are numpy's, plus bfloat16; sizes in bytes.
DTYPES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

_SPEC = re.compile(r"^\s*(?P<dtype>\w+)\s*\[(?P<dims>[^\[\]]*)\]\s*$")
# A name, or a sum of names: the length of a cache and of what is appended to it.
_NAME = re.compile(r"^[A-Za-z_]\w*( \+ [A-Za-z_]\w*)*$")
_PLUS = " + "


@dataclass(frozen=True)
class DimRange:
    """The range of one dimension, the same for export, profiles, feeds and serving.

    Only a length that may be empty, such as that of a cache, starts at 0.
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not (0 <= self.min <= self.opt <= self.max and self.max > 0):
            raise RecipeError(
                f"shape range [{self.min}, {self.opt}, {self.max}] is not 0 <= min <= opt <= max"
            )

    @property
    def fixed(self) -> bool:
        """Whether the dimension can take one value only."""
        return self.min == self.max


Shapes = Mapping[str, DimRange]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output.

    Attributes:
        name: The tensor's name in the graph.
        dtype: One of ``DTYPES``.
        shape: Sizes, names of symbolic dimensions, or sums of names (``past + sequence``).
        low: Smallest valid value (inclusive); None means unbounded.
        high: Largest valid value (exclusive); None means unbounded.
        role: ``mask`` for 0/1 attention masks, ``values`` otherwise; tells feeds what is valid.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: float | None = field(default=None, kw_only=True)
    high: float | None = field(default=None, kw_only=True)
    role: Literal["values", "mask"] = field(default="values", kw_only=True)

    @classmethod
    def parse(
        cls, name: str, text: str, *, low: float | None = None, high: float | None = None
    ) -> TensorSpec:
        """Read ``float32[batch, 1, 8, 8]``.

        Raises:
            RecipeError: If the text is not ``dtype[dim, dim, …]`` or the dtype is unknown.
        """
        match = _SPEC.match(text)
        if match is None:
            raise RecipeError(
                f"input {name!r} is {text!r}, which is not of the form dtype[dim, dim]",
                hint="for example float32[batch, 1, 28, 28] or int64[batch, sequence]",
            )
        dtype = match["dtype"]
        if dtype not in DTYPES:
            raise RecipeError(
                f"input {name!r} has unknown dtype {dtype!r}", hint="one of " + ", ".join(DTYPES)
            )
        dims = [part.strip() for part in match["dims"].split(",")] if match["dims"].strip() else []
        return cls(name, dtype, tuple(_dim(name, dim) for dim in dims), low=low, high=high)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of symbolic dimensions, in order; a sum counts as its terms."""
        return tuple(
            name for dim in self.shape if isinstance(dim, str) for name in dim.split(_PLUS)
        )

    def resolve(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape for given values of the symbolic dimensions."""
        return tuple(
            sum(dims[name] for name in dim.split(_PLUS)) if isinstance(dim, str) else dim
            for dim in self.shape
        )


def _dim(name: str, text: str) -> int | str:
    if text.isdigit() and int(text) > 0:
        return int(text)
    if _NAME.match(text):
        return text
    raise RecipeError(
        f"input {name!r} has dimension {text!r}, which is neither a positive size nor a name"
    )


def span_of(dim: str, shapes: Shapes) -> DimRange:
    """The range of a symbolic dimension, or of a sum of them."""
    spans = [shapes[name] for name in dim.split(_PLUS)]
    return DimRange(
        sum(span.min for span in spans), sum(span.opt for span in spans), sum(s.max for s in spans)
    )


def corners(shapes: Shapes) -> Iterator[dict[str, int]]:
    """Every combination of min, opt and max of every dimension, without repeats, opt first."""
    names = list(shapes)
    choices = [dict.fromkeys((r.opt, r.min, r.max)) for r in shapes.values()]
    for values in itertools.product(*choices):
        yield dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file (``model.onnx`` and, beside it, ``model.onnx.data``) and its interface."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int


@dataclass(frozen=True)
class Engine:
    """A serialized TensorRT or TensorRT-RTX engine and what it was built with.

    Attributes:
        path: The plan.
        flavour: Which of the two libraries built it, and can run it.
        version: That library's version.
        compute_capabilities: The GPU architectures named for it; empty is the builder's default.
        layers: Layers of the network the parser made, before the builder fused them.
        seconds: What the build took.
        inputs: The network's inputs, read back after parsing.
        outputs: Likewise its outputs; a dimension the parser has no name for is ``NAME_AXIS``.
        profiles: Names of its optimization profiles, in order; empty is one without a name.
        kinds: Layers of that network by TensorRT's name of their type.
        dtypes: Their outputs by type of data.
        conditionals: How many of them decide which branch runs.
        options: What was asked for beside the defaults.
        carries_plugins: Whether the plugin library lies in the plan.
        timing_cache: The file, and its bytes before and after; None where there is none.
        notes: What a user should know.
        ranges: The range of each dimension in every profile, in the same order.
        plugin: What runs gating and dispatch of experts; see ``EngineOptions``.
    """

    path: Path
    flavour: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    compute_capabilities: tuple[str, ...]
    layers: int
    seconds: float
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    profiles: tuple[str, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    dtypes: Mapping[str, int] = field(default_factory=dict)
    conditionals: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    carries_plugins: bool = False
    timing_cache: tuple[str, int, int] | None = None
    notes: tuple[str, ...] = ()
    ranges: tuple[Shapes, ...] = ()
    plugin: str = "none"
