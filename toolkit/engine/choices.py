"""The words that options are given in."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "POOLS",
    "SWITCHES",
    "TITLES",
    "Flavour",
    "Hardware",
    "Pool",
    "Refit",
    "Verbosity",
]

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Pool = Literal["workspace", "tactic_dram", "tactic_shared_memory"]
Refit = Literal["none", "any", "identical"]
Hardware = Literal["none", "ampere_plus", "same_compute_capability"]
Verbosity = Literal["none", "layer_names", "detailed"]

TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
POOLS: tuple[Pool, ...] = ("workspace", "tactic_dram", "tactic_shared_memory")
# Options that are on or off and nothing else, each one flag of the builder.
SWITCHES = (
    "sparse", "strip_weights", "weight_streaming", "version_compatible", "exclude_lean_runtime",
)  # fmt: skip
