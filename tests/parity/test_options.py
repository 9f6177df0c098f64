"""Tolerance and the limits that follow from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import RecipeError
from toolkit.parity import Tolerance
from toolkit.parity.compare import Deviation
from toolkit.parity.limits import Healthy, healthy_errors, limits
from toolkit.parity.measure import Broken

EPS = 2.0**-23
errors = st.floats(0, 1)


def test_a_recipe_can_tighten():
    assert Tolerance().tightened(max_relative=1e-6) == Tolerance(max_relative=1e-6)
    assert Tolerance().tightened() == Tolerance()


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"max_relative": 1e-2}, "parity bound max_relative is 0.01, which is not between 0 and"),
        ({"rms_ratio": -1}, "parity bound rms_ratio is -1, which is not between 0 and 4"),
        ({"max_ratio": float("nan")}, "parity bound max_ratio is nan, which is not between 0 and"),
        ({"rtol": 1}, "parity has no bound named 'rtol'"),
    ],
)
def test_a_recipe_cannot_loosen(bounds, text):
    with pytest.raises(RecipeError) as error:
        Tolerance().tightened(**bounds)
    assert str(error.value).startswith(text)


@given(errors, errors, st.floats(1, 100))
def test_limits_follow_the_formula(rms, largest, peak):
    deviation = Deviation(n=1, eps=EPS, scale=2.0, peak=peak)
    found = limits(deviation, Healthy(rms, largest), Tolerance())
    assert found.rms == max(4 * rms, 4 * EPS)
    assert found.max == max(1e-4, 4 * largest, 4 * EPS * peak / 2.0)


@given(errors, errors)
def test_a_healthy_error_is_always_within_its_own_limits(rms, largest):
    found = limits(Deviation(n=1, eps=EPS), Healthy(rms, largest), Tolerance())
    assert rms <= found.rms
    assert largest <= found.max


def test_integers_have_no_room_of_their_own():
    deviation = Deviation(n=1, eps=0.0)
    found = limits(deviation, Healthy(0.0, 0.0), Tolerance())
    assert (found.rms, found.max) == (0, 0)


def test_without_a_baseline_there_is_no_rms_limit():
    found = limits(Deviation(n=1, eps=EPS), None, Tolerance())
    assert found.rms is None
    assert found.max == 1e-4


def test_a_lucky_case_gets_the_median_of_its_kind():
    deviations = {(i, "y"): Deviation(1, EPS, rms=r, max=2 * r) for i, r in enumerate([1, 9, 5])}
    found = healthy_errors([{**deviations, (3, "y"): Broken("")}], ["a", "a", "a", "b"], "y")
    assert found == {0: Healthy(5, 10), 1: Healthy(9, 18), 2: Healthy(5, 10)}


def test_the_largest_baseline_counts_in_each_case():
    first = {(i, "y"): Deviation(1, EPS, rms=r, max=2 * r) for i, r in enumerate([1, 9, 5])}
    second = {(i, "y"): Deviation(1, EPS, rms=r, max=r) for i, r in enumerate([7, 2, 11])}
    found = healthy_errors([first, second], ["a", "a", "a"], "y")
    assert found == {0: Healthy(9, 11), 1: Healthy(9, 18), 2: Healthy(11, 11)}
