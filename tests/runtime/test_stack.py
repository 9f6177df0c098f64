"""The reference of a stack: stages in order, one at a time, and rows that hang on rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.artifacts import TensorSpec
from toolkit.parity.sweep import sweep
from toolkit.runtime import Renamed, StackRunner
from toolkit.runtime.ensemble import undecided

LOADED: list[str] = []


@dataclass
class Fake:
    """``y`` is the sum of the inputs plus ``more``; rows above ``doubt`` are undecided."""

    name: str
    takes: tuple[str, ...]
    more: float = 0.0
    doubt: float | None = None

    @property
    def inputs(self):
        return tuple(TensorSpec(name, "float32", ("batch", 2)) for name in self.takes)

    def __enter__(self):
        LOADED.append(self.name)
        return self

    def __exit__(self, *error):
        LOADED.remove(self.name)

    def __call__(self, feeds):
        assert self.name in LOADED
        y = sum(feeds[name] for name in self.takes) + self.more
        marks = {} if self.doubt is None else {undecided("y"): y[:, :1] > self.doubt}
        return {"y": y, **marks, "alone": np.array([len(LOADED) == 1])}


X = np.array([[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]])


def stack(doubt=None, last=None):
    inner = StackRunner([Fake("a", ("x",), 1), Fake("b", ("x", "f"), 10)], {"f": (0, "y")})
    stages = [
        Fake("c", ("x",), 100, doubt),
        Renamed(inner, {"x": "g"}),
        Fake("d", ("g", "h"), 0, last),
    ]
    return StackRunner(stages, {"g": (0, "y"), "h": (1, "y")})


def test_stages_run_in_order_and_only_what_is_not_fed_is_an_input():
    runner = stack()
    assert [spec.name for spec in runner.inputs] == ["x"]
    with runner as run:
        found = run({"x": X})
    c = X + 100
    np.testing.assert_array_equal(found["y"], c + (c + (c + 1) + 10))
    assert LOADED == []


def test_a_sweep_gives_the_same_with_one_stage_loaded_at_a_time():
    feeds = [lambda k=k: {"x": X * k} for k in range(3)]
    swept = list(sweep(stack(102.0), feeds, 0))
    with stack(102.0) as run:
        for k, found in enumerate(swept):
            wanted = run({"x": X * k})
            np.testing.assert_array_equal(found["y"], wanted["y"])
            np.testing.assert_array_equal(found[undecided("y")], wanted[undecided("y")])
            assert found["alone"]
            assert not wanted["alone"]


def test_an_undecided_row_stays_undecided_through_the_stages_and_adds_to_others():
    with stack(102.0) as run:
        marks = run({"x": X})[undecided("y")]
    np.testing.assert_array_equal(marks, [[False], [True], [True]])
    with stack(105.5, last=0.0) as run:
        marks = run({"x": X * [[1.0], [-100.0], [1.0]]})[undecided("y")]
    np.testing.assert_array_equal(marks, [[True], [False], [True]])
