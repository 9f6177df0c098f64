"""Tiny runners: a linear classifier in float64, float32 and with planted faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from toolkit.artifacts import DimRange, TensorSpec
from toolkit.feeds import Case, cases
from toolkit.runtime.base import Feeds, Outputs

INPUTS = (TensorSpec("x", "float32", ("batch", 8)),)
WEIGHT = np.random.default_rng(7).standard_normal((8, 5)).astype(np.float32)


class FakeRunner:
    """Runs a function of one input and keeps count of how many runners are entered at once."""

    entered = 0
    most_entered = 0

    def __init__(self, name: str, function: Callable[[np.ndarray], dict[str, np.ndarray]]):
        self.name = name
        self.inputs = INPUTS
        self._function = function

    def __enter__(self):
        FakeRunner.entered += 1
        FakeRunner.most_entered = max(FakeRunner.entered, FakeRunner.most_entered)
        return self

    def __exit__(self, *_):
        FakeRunner.entered -= 1

    def __call__(self, feeds: Feeds) -> Outputs:
        return self._function(feeds["x"])


def logits(x: np.ndarray, dtype: str, weight: np.ndarray = WEIGHT) -> dict[str, np.ndarray]:
    """Two layers, so that rounding has something to add up."""
    hidden = np.tanh(x.astype(dtype) @ weight.astype(dtype))
    return {"logits": hidden @ weight.T.astype(dtype)}


def reference() -> FakeRunner:
    return FakeRunner("numpy float64", partial(logits, dtype="float64"))


def baseline() -> FakeRunner:
    return FakeRunner("numpy float32", partial(logits, dtype="float32"))


def candidate(weight: np.ndarray = WEIGHT, name: str = "candidate") -> FakeRunner:
    """Sums in another order than the baseline, as another runtime would."""

    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        hidden = np.tanh(x[:, ::-1] @ weight[::-1])
        return {"logits": hidden[:, ::-1] @ weight.T[::-1]}

    return FakeRunner(name, run)


def altered(change: Callable[[np.ndarray, np.ndarray], np.ndarray], name="altered") -> FakeRunner:
    """The healthy candidate with ``change(x, logits)`` on its output."""

    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        with candidate() as runner:
            return {"logits": change(x, runner({"x": x})["logits"].copy())}

    return FakeRunner(name, run)


def some_cases(count: int = 4) -> tuple[Case, ...]:
    return cases(INPUTS, {"batch": DimRange(1, 4, 9)}, seed=0, count=count)
