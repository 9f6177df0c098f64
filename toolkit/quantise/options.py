"""What a quantiser is asked for and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Low", "QuantiseOptions", "Quantised"]

Low = Literal["int8", "int8_dynamic", "int8_weights", "int4_weights", "fp8"]


@dataclass(frozen=True)
class QuantiseOptions:
    """How a float32 graph becomes one of low precision.

    Attributes:
        precision: ``int8`` quantises weights per channel and activations per tensor, by ranges
            seen in calibration; ``int8_dynamic`` takes ranges of activations at run time;
            ``…_weights`` keep activations in float32; ``fp8`` is E4M3 for TensorRT.
        symmetric: Whether zero is at code 0 in activations too, as TensorRT wants it.
        keep: Shell patterns of names of nodes that stay in float32.
        block: Weights that share a scale along the input, where weights alone are quantised.
    """

    precision: Low
    symmetric: bool = False
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
