"""What a quantiser is asked for and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from toolkit.runtime import Feeds

__all__ = [
    "CONVOLUTIONS",
    "LARGE",
    "PRODUCTS",
    "Low",
    "QuantiseOptions",
    "Quantised",
    "Quantiser",
]

PRODUCTS = frozenset({"MatMul", "Gemm"})
CONVOLUTIONS = PRODUCTS | {"Conv"}
LARGE = 1 << 30
"""Bytes of weights that take a file of their own: protobuf ends at 2 GiB, and a quantiser holds
weights twice."""

Low = Literal["int8", "int8_dynamic", "int8_weights", "int4_weights", "fp8"]


@dataclass(frozen=True)
class QuantiseOptions:
    """How a float32 graph becomes one of low precision.

    Attributes:
        precision: ``int8`` quantises weights per channel and activations per tensor, by ranges
            seen in calibration; ``int8_dynamic`` takes ranges of activations at run time;
            ``…_weights`` keep activations in float32; ``fp8`` is E4M3 for TensorRT.
        tensorrt: Whether TensorRT is to build it: zero is at code 0 in activations too, codes stand
            in front of products alone, biases stay floats, and 4-bit weights are ONNX's own.
        keep: Shell patterns of names of nodes that stay in float32.
        block: Weights that share a scale along the input, where weights alone are quantised.
    """

    precision: Low
    tensorrt: bool = False
    keep: tuple[str, ...] = ()
    block: int = 32


@dataclass(frozen=True)
class Quantised:
    """What was done.

    Attributes:
        quantiser: The package that did it, with its version.
        nodes: How many products and convolutions are quantised.
        kept: Names of those that stay in float32.
        bytes_before: Of weights, in float32.
        bytes_after: The same of the graph that was written, scales included.
    """

    quantiser: str
    nodes: int
    kept: tuple[str, ...]
    bytes_before: int
    bytes_after: int


Quantiser = Callable[[Path, Path, QuantiseOptions, tuple[str, ...], "Iterable[Feeds]"], str]
"""Reads a file, writes another, leaves nodes of such names alone; says what did it."""
