"""The budget of low precision: which figures are held, over which cases."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.feeds import Case
from toolkit.parity import OutputSpec, ParityOptions, QuantisedBudget, prove_quantised

ROWS = 200
LOGITS = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)


class Says:
    """A runner that says the same of every input, moved by what it is made with."""

    def __init__(self, name, change=lambda feeds, out: out):
        self.name, self.change, self.inputs = name, change, ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __call__(self, feeds):
        return {"y": self.change(feeds["x"], LOGITS.copy())}


def cases(*kinds):
    made = lambda value: lambda: {"x": np.array([value], np.float32)}  # noqa: E731
    return [Case(f"{k} {i}", k, {}, made(float(i))) for i, k in enumerate(kinds)]


def prove(change, *kinds, space="logits", **budget):
    return prove_quantised(
        Says("right"), [Says("int8", change)], cases(*(kinds or ("random",))),
        [OutputSpec("y", space)], ParityOptions(), QuantisedBudget(**budget),
    )  # fmt: skip


def check(report, gate):
    return next(c for v in report.verdicts for c in v.checks if c.gate == gate)


def turned(count):
    """The first rows say something else entirely."""

    def change(_, out):
        out[:count] = -out[:count]
        return out

    return change


@pytest.mark.parametrize(("count", "passed"), [(2, True), (3, False)])
def test_choices_are_counted_against_the_share_allowed(count, passed):
    report = prove(turned(count), agreement=0.99, divergence=10)
    assert report.passed is passed
    found = check(report, "agreement")
    assert found.measured == pytest.approx(count / ROWS)
    assert f"of 200 choices in the random cases {ROWS - count} agree" in found.detail


def test_divergence_is_the_mean_over_rows():
    report = prove(turned(20), agreement=0, divergence=0.01)
    log = LOGITS[:20] - np.log(np.exp(LOGITS[:20]).sum(1, keepdims=True))
    other = -LOGITS[:20] - np.log(np.exp(-LOGITS[:20]).sum(1, keepdims=True))
    mean = (np.exp(log) * (log - other)).sum() / ROWS
    assert check(report, "mean divergence").measured == pytest.approx(mean, rel=1e-4)
    assert not report.passed
    assert report.failures()[0][1].gate == "mean divergence"


@pytest.mark.parametrize(("error", "passed"), [(0.04, True), (0.06, False)])
def test_values_are_held_by_their_relative_error(error, passed):
    report = prove(lambda _, out: out * (1 + error), space="values")
    assert report.passed is passed
    assert check(report, "error").measured == pytest.approx(error, rel=1e-3)


def test_real_inputs_are_what_counts_and_edges_must_be_finite():
    def wrong_at_random(x, out):
        return -out if x[0] == 1 else out

    assert prove(wrong_at_random, "real", "random").passed
    assert not prove(wrong_at_random, "random", "random").passed

    def infinite(x, out):
        return out * np.inf if x[0] == 1 else out

    report = prove(infinite, "real", "corner")
    assert check(report, "finite").status == "fail"


def test_a_graph_that_does_not_run_fails():
    def refuse(x, out):
        raise ValueError("no kernel")

    report = prove(refuse)
    assert not report.passed
    assert "no kernel" in check(report, "ran").detail
