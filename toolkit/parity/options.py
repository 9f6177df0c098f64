"""What a proof is asked to hold: the outputs and the bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError
from toolkit.runtime.base import Runner

__all__ = ["OutputSpec", "ParityOptions", "Precision", "Space", "Structure", "Tolerance"]

Space = Literal["logits", "probabilities", "values"]
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class OutputSpec:
    """An output to compare.

    Attributes:
        name: Its name, the same in the reference and in every candidate.
        space: ``logits`` (log probabilities included) and ``probabilities`` are distributions
            over the last axis and are also compared as such; ``values`` are numbers only.
    """

    name: str
    space: Space = "values"


@dataclass(frozen=True)
class Tolerance:
    """The bounds, as multiples of the healthy error: that of PyTorch in the same precision.

    Errors are relative to the *scale* of the output in that case: the root mean square of the
    reference's finite values, 1 where that is zero. With ``healthy`` the largest of the baselines'
    errors in the same case, or its median over the class of cases where that is larger (one small
    case can be lucky), a case passes if

        rms error <= max(rms_ratio * healthy rms, floor_ulps * eps)
        max error <= max(max_relative, max_ratio * healthy max, floor_ulps * eps * peak / scale)

    where ``eps`` is the spacing of the proof's precision at 1 and ``peak`` the largest absolute
    reference value. ``max_relative`` gives way only where PyTorch's own error is of that size, so
    a healthy graph never fails it. Integer and boolean outputs have scale 1, eps 0 and
    ``max_relative`` 0: they may differ from the reference only as PyTorch's do.

    The budget is held by all cases of a class together, where one lucky value weighs little: with
    R the candidate's figure over the largest of the baselines',

        R_rms <= budget_rms * s,   R_p99 <= budget_p99 * s,   R_max <= budget_max * s

    over a floor of half a unit for the first two and of ``floor_ulps`` units for the last; in
    half precision the floor of a case's rms error is one unit instead of ``floor_ulps``.
    ``s = 1 + 4 / sqrt(rows)`` is what the ratio of two samples of so few rows may be off by.
    """

    rms_ratio: float = 4.0
    max_ratio: float = 4.0
    max_relative: float = 1e-4
    floor_ulps: float = 4.0
    budget_rms: float = 2.0
    budget_p99: float = 2.0
    budget_max: float = 4.0

    def tightened(self, **bounds: float) -> Tolerance:
        """A copy with smaller bounds.

        Raises:
            RecipeError: If a bound is unknown, negative or larger than the present one.
        """
        known = {field.name for field in fields(self)}
        for name, value in bounds.items():
            if name not in known:
                raise RecipeError(
                    f"parity has no bound named {name!r}", hint="one of " + ", ".join(sorted(known))
                )
            if not 0 <= value <= getattr(self, name):
                raise RecipeError(
                    f"parity bound {name} is {value:g}, which is not between 0 and"
                    f" {getattr(self, name):g}",
                    hint="a recipe can tighten the proof, not loosen it",
                )
        return replace(self, **bounds)


@dataclass(frozen=True)
class ParityOptions:
    """How a proof is run.

    Attributes:
        tolerance: The bounds.
        precision: Of the candidates' arithmetic, whatever the dtype of their outputs.
        seconds: Time for all runners together; None for as long as it takes. The reference stops
            taking cases when its share is spent, and the rest is reported as not run.
        memory_bytes: Reference outputs kept in memory; the rest waits in a temporary folder.
        worst: How many of the worst cases the report lists for each candidate.
        inputs: The inputs, to know rows and masks by; what each runner says of itself if empty.
        notes: What a reader must know about how the proof was run.
        causal: Whether a position depends on none behind it, so that a token which goes to other
            experts changes later positions alone; otherwise it changes its whole row.
    """

    tolerance: Tolerance = Tolerance()
    precision: Precision = "float32"
    seconds: float | None = None
    memory_bytes: int = 256 * 2**20
    worst: int = 10
    inputs: tuple[TensorSpec, ...] = ()
    notes: tuple[str, ...] = ()
    causal: bool = False


@dataclass(frozen=True)
class Structure:
    """The graph in float32, to prove its structure where half precision would hide a defect.

    Attributes:
        baselines: PyTorch in float32.
        candidates: The float32 graph, by runtime.
    """

    baselines: tuple[Runner, ...]
    candidates: tuple[Runner, ...]
