"""TIES as its paper has it: the largest magnitudes of a whole task vector, over all tensors.

Three passes over the inputs before the merge itself: two for the histograms that find the
threshold, one to count, per tensor, the elements that equal it, so that the first of them in the
order of the plan are kept whatever thread gets to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.execute import Execution
from toolkit.merge.kernels.selection import (
    LOWER,
    UPPER,
    count_equal,
    kth_from_top,
    lower_histogram,
    upper_histogram,
)
from toolkit.merge.methods.sparsify import Magnitude, Thresholds
from toolkit.merge.methods.task_vectors import TaskVectors
from toolkit.merge.plan import OutputTensor

__all__ = ["check_trimming", "trim_over_model"]

Array = npt.NDArray[Any]


def trim_over_model(
    outputs: Sequence[OutputTensor], execution: Execution
) -> Sequence[OutputTensor]:
    """Replace trimming over the whole model, where it is asked for, by thresholds.

    Raises:
        MergeError: If a model's density is not the same for all tensors, or an input not finite.
    """
    chosen = [n for n, output in enumerate(outputs) if _over_model(output)]
    if not chosen:
        return outputs
    densities = check_trimming(outputs)
    thresholds = _Counter([outputs[n] for n in chosen], execution).thresholds(densities)
    result = list(outputs)
    for n, found in zip(chosen, thresholds, strict=True):
        method = outputs[n].method
        assert isinstance(method, TaskVectors)
        trimmed = replace(method, sparsifier=Thresholds(densities, tuple(found)))
        result[n] = replace(outputs[n], method=trimmed)
    return result


def check_trimming(outputs: Sequence[OutputTensor]) -> tuple[float, ...]:
    """The densities of the models that are trimmed as a whole; none where nothing is.

    Raises:
        MergeError: If a model's density is not the same for all tensors.
    """
    found = {m.densities for m in map(_over_model, outputs) if m is not None}
    if len(found) > 1:
        one, other = sorted(found)[:2]
        raise MergeError(
            f"trim: model takes one density for all tensors, and here are {one} and {other}",
            hint="trim: tensor takes gradients and filters of density",
        )
    return found.pop() if found else ()


def _over_model(output: OutputTensor) -> Magnitude | None:
    """How a tensor is trimmed, if it is together with all others."""
    sparsifier = getattr(output.method, "sparsifier", None)
    if isinstance(sparsifier, Magnitude) and sparsifier.over_model:
        return sparsifier
    return None


@dataclass(frozen=True)
class _Counter:
    """Counts over all tensors, in parallel."""

    outputs: Sequence[OutputTensor]
    execution: Execution

    def thresholds(self, densities: Sequence[float]) -> list[list[tuple[int, int]]]:
        """For every tensor and model: the smallest key to keep, and how many that equal it."""
        count = len(densities)
        total = sum(int(np.prod(output.shape, dtype=np.int64)) for output in self.outputs)
        wanted = [int(density * total) for density in densities]
        upper = np.zeros((count, UPPER), np.int64)
        self._over_all(upper, lambda i, row, base, own: upper_histogram(row, base, own[i]))
        bins = [kth_from_top(upper[i], k) if k else (UPPER, 0) for i, k in enumerate(wanted)]
        lower = np.zeros((count, LOWER), np.int64)
        self._over_all(
            lower, lambda i, row, base, own: lower_histogram(row, base, bins[i][0], own[i])
        )
        keys, quotas = [], []
        for i, (high, rest) in enumerate(bins):
            low, quota = kth_from_top(lower[i], rest) if wanted[i] else (0, 0)
            keys.append(high << 15 | low)
            quotas.append(quota)
        return self._shared_out(keys, quotas)

    def _shared_out(self, keys: list[int], quotas: list[int]) -> list[list[tuple[int, int]]]:
        """Give each tensor its part of the equals, the first tensors first."""
        equal = np.zeros((len(self.outputs), len(keys)), np.int64)

        def task(number: int) -> None:
            operands = self.execution.operands(self.outputs[number], None)
            for _, rows in operands.chunks():
                for i, key in enumerate(keys):
                    equal[number, i] += count_equal(rows[i + 1], rows[0], key)

        self._run(task)
        before = np.cumsum(equal, axis=0) - equal
        own = np.clip(np.array(quotas) - before, 0, equal)
        return [list(zip(keys, map(int, row), strict=True)) for row in own]

    def _over_all(self, total: Array, count: Callable[[int, Array, Array, Array], None]) -> None:
        def task(number: int) -> None:
            own = np.zeros_like(total)
            operands = self.execution.operands(self.outputs[number], None)
            for _, rows in operands.chunks():
                for i in range(len(own)):
                    count(i, rows[i + 1], rows[0], own)
            with self.execution.exclusive():
                np.add(total, own, out=total)

        self._run(task)

    def _run(self, task: Callable[[int], None]) -> None:
        def one(number: int) -> Callable[[], None]:
            return lambda: task(number)

        self.execution.run([one(number) for number in range(len(self.outputs))])
