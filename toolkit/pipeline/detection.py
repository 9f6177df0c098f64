"""How small a defect of the weights a proof in half precision can still see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from toolkit.feeds import cases
from toolkit.parity import Tolerance
from toolkit.parity.compare import compare
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.reference import output_specs, reference_runner
from toolkit.runtime import Feeds, Outputs, Runner

__all__ = ["detection_floor"]

_CASES = 3
_DEFECT = 1e-3


def detection_floor(plan: Plan, exact: str, tolerance: Tolerance) -> float:
    """The relative defect of one weight matrix that just leaves the budget.

    Measured: PyTorch in the precision that ships gives the healthy error, PyTorch in ``exact``
    with the middle one of its weight matrices scaled by 1.001 gives the error per defect.

    Args:
        plan: The models.
        exact: Precision of the reference.
        tolerance: The bounds.

    Returns:
        The median over the models' outputs and the first cases; infinite if the matrix changes
        nothing.
    """
    output = output_specs(plan)[0]
    made = cases(plan.inputs, plan.shapes, seed=plan.recipe.parity_seed, count=0)
    feeds = [case.feeds() for case in islice(made, _CASES)]
    right = _run(reference_runner(plan, exact), feeds)
    own = _run(reference_runner(plan, plan.recipe.export.arithmetic), feeds)
    wrong = _run(reference_runner(plan, exact, _scale_the_middle), feeds)
    floors = []
    for one, healthy, defect in zip(right, own, wrong, strict=True):
        error = compare(one[output.name], healthy[output.name], "values").rms
        moved = compare(one[output.name], defect[output.name], "values").rms
        limit = tolerance.budget_rms * error
        floors.append(limit / (moved / _DEFECT) if moved > 0 else np.inf)
    return float(np.median(floors))


def _run(runner: Runner, feeds: Sequence[Feeds]) -> list[Outputs]:
    with runner as run:
        return [run(one) for one in feeds]


def _scale_the_middle(module: nn.Module) -> None:
    matrices = [weight for weight in module.parameters() if weight.dim() == 2]
    if matrices:
        with torch.no_grad():
            matrices[len(matrices) // 2].mul_(1 + _DEFECT)
