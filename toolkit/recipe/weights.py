"""What the constant weights of an ensemble must satisfy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from toolkit.recipe.problems import Problem

__all__ = ["MAX_WEIGHT", "SUM_TOLERANCE", "listed", "weight_problems"]

SUM_TOLERANCE = 1e-6
# Log-linear weights scale logits; above this every distribution is one-hot in float32.
MAX_WEIGHT = 1e6


def weight_problems(weights: list[Any], count: int, combine: Any) -> Iterator[Problem]:
    """What is wrong with ``weights`` for ``count`` members, beyond each weight's own range."""
    path = ("weights",)
    if len(weights) != count:
        yield Problem(path, f"found {len(weights)} weights for {count} members")
        return
    if not all(_is_weight(weight) for weight in weights):
        return  # told per weight
    total = math.fsum(weights)
    if combine == "linear" and abs(total - 1.0) > SUM_TOLERANCE:
        yield Problem(path, f"weights sum to {total:.9g}, wanted 1", _normalised_hint(weights))
    if combine == "log_linear" and total == 0:
        yield Problem(path, "weights are all 0, wanted at least one above 0")


def _is_weight(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= MAX_WEIGHT


def _normalised_hint(weights: Sequence[float]) -> str:
    total = math.fsum(weights)
    if total == 0:
        return "for a uniform mean leave weights out"
    return f"normalised: {listed([weight / total for weight in weights])}"


def listed(weights: Sequence[float]) -> str:
    """Weights in six digits that still sum to 1: the largest takes the rounding."""
    rounded = [round(weight, 6) for weight in weights]
    largest = rounded.index(max(rounded))
    rest = math.fsum(rounded[:largest] + rounded[largest + 1 :])
    rounded[largest] = round(1 - rest, 6)
    return "[" + ", ".join(f"{weight:g}" if weight else "0" for weight in rounded) + "]"
