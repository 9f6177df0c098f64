"""How small a defect of the weights a proof in half precision can still see."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from toolkit.feeds import cases
from toolkit.parity.compare import compare
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.reference import output_specs, reference_runner
from toolkit.runtime import Feeds, Outputs, Runner

__all__ = ["detection_floor"]

_CASES = 3
_MATRICES = 4
_DEFECT = 1e-3


def detection_floor(plan: Plan, exact: str, limit: float) -> float:
    """The relative defect of a weight matrix that just leaves an error's limit.

    Measured in PyTorch: four matrices from first to last, one at a time, are scaled by 1.001.

    Args:
        plan: The models.
        exact: Precision of the reference.
        limit: The largest root mean square error, relative to the output's scale.

    Returns:
        Of the matrix whose defects show least, the median over the first cases; infinite if a
        matrix changes nothing.
    """
    output = output_specs(plan)[0]
    made = cases(plan.inputs, plan.shapes, seed=plan.recipe.parity_seed, count=0)
    feeds = [case.feeds() for case in islice(made, _CASES)]
    right = _run(reference_runner(plan, exact), feeds)
    floors = []
    for place in range(_MATRICES):
        wrong = _run(reference_runner(plan, exact, partial(_scale, place=place)), feeds)
        moved = [
            compare(one[output.name], defect[output.name], "values").rms
            for one, defect in zip(right, wrong, strict=True)
        ]
        floors.append(np.median([limit / (m / _DEFECT) if m > 0 else np.inf for m in moved]))
    return float(max(floors))


def _run(runner: Runner, feeds: Sequence[Feeds]) -> list[Outputs]:
    with runner as run:
        return [run(one) for one in feeds]


def _scale(module: nn.Module, place: int) -> None:
    """Scale one of the module's matrices, ``place`` of ``_MATRICES`` on the way to the last."""
    matrices = [weight for weight in module.parameters() if weight.dim() == 2]
    if matrices:
        with torch.no_grad():
            matrices[place * (len(matrices) - 1) // (_MATRICES - 1)].mul_(1 + _DEFECT)
