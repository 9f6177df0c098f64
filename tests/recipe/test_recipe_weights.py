"""Constant weights: how many, which values, and what they sum to."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.text import read, refused
from toolkit.recipe.weights import SUM_TOLERANCE


def recipe(weights: object, combine: str = "linear", members: int = 2, space: str = "") -> str:
    listed = ", ".join(f"{{checkpoint: m{i}}}" for i in range(members))
    given_weights = "" if weights is None else f"weights: {weights}, "
    given_space = f"space: {space}, " if space else ""
    return (
        f"model: {{ensemble: {{combine: {combine}, {given_space}{given_weights}"
        f"members: [{listed}]}}}}"
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (recipe([0.5, 0.3, 0.2]), "weights: found 3 weights for 2 members", ""),
        (recipe([]), "weights: found 0 weights for 2 members", ""),
        (recipe([1.2, -0.2]), "weights[1]: found -0.2, wanted at least 0", ""),
        (recipe("[.nan, 1]"), "weights[0]: found nan, wanted a finite number", ""),
        (recipe("[1, .inf]"), "weights[1]: found inf, wanted a finite number", ""),
        (recipe("[1e7, 1]"), "weights[0]: found 10000000.0, wanted at most 1e+06", ""),
        (recipe("['0.5', 0.5]"), "weights[0]: found '0.5', wanted a number", ""),
        (recipe("[true, 0]"), "weights[0]: found true, wanted a number", ""),
        (recipe("0.5"), "weights: found 0.5, wanted a list", ""),
        (recipe([3, 1]), "weights: weights sum to 4, wanted 1", "normalised: [0.75, 0.25]"),
        (
            recipe([0.6, 0.399]),
            "weights: weights sum to 0.999, wanted 1",
            "normalised: [0.600601, 0.399399]",
        ),
        (
            recipe([0, 0]),
            "weights: weights sum to 0, wanted 1",
            "for a uniform mean leave weights out",
        ),
        (
            recipe([0, 0], "log_linear"),
            "weights: weights are all 0, wanted at least one above 0",
            "",
        ),
        (
            recipe(None, "log_linear", space="values"),
            "space: log_linear of plain values has no meaning, wanted logits or probabilities",
            "use combine: linear for a weighted mean of values",
        ),
    ],
)
def test_weights_that_cannot_be_meant(text, message, hint):
    error = refused(text)
    assert error.message == f"r.yaml:1: model.ensemble.{message}"
    assert error.hint == hint


def test_two_problems_of_one_ensemble_are_both_told():
    message = refused(recipe([-1, 1, 0], "log_linear", space="values")).message
    assert "found 3 weights for 2 members" in message
    assert "found -1, wanted at least 0" in message
    assert "log_linear of plain values" in message


def test_no_weights_are_uniform_weights():
    for combine in ("linear", "log_linear"):
        ensemble = read(recipe(None, combine, members=3)).model.ensemble
        assert ensemble.weights == (1 / 3, 1 / 3, 1 / 3)


def test_log_linear_weights_need_not_sum_to_one():
    assert read(recipe([2, 0.5], "log_linear")).model.ensemble.weights == (2.0, 0.5)


def test_the_sum_may_be_off_by_rounding():
    weights = [0.3333333, 0.3333333, 0.3333333]
    assert read(recipe(weights, members=3)).model.ensemble.weights == tuple(weights)
    assert "weights sum to 0.99999," in refused(recipe([0.33333] * 3, members=3)).message


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3))
def test_the_normalised_weights_of_the_hint_are_accepted(weights):
    if abs(math.fsum(weights) - 1) <= SUM_TOLERANCE:
        return
    hint = refused(recipe(weights, members=len(weights))).hint
    listed = re.fullmatch(r"normalised: (\[.*\])", hint)
    assert listed is not None
    read(recipe(listed[1], members=len(weights)))
