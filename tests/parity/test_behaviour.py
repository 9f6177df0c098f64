"""Behaviour: divergence, agreement and lost margins of distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.parity.behaviour import Behaviour

rows = hnp.arrays(np.float64, (4, 5), elements=st.floats(-20, 20))


def behaviour(reference, candidate, space="logits") -> Behaviour:
    found = Behaviour()
    found.add(np.atleast_2d(reference).astype(float), np.atleast_2d(candidate).astype(float), space)
    return found


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@given(rows, rows)
def test_divergence_is_not_negative_and_agrees_with_its_definition(reference, candidate):
    found = behaviour(reference, candidate)
    p, q = softmax(reference), softmax(candidate)
    wanted = (p * np.log(p / q)).sum(axis=1)
    assert found.kl_max >= 0
    assert found.kl_sum == pytest.approx(wanted.sum(), rel=1e-6, abs=1e-9)


@given(rows, st.floats(-50, 50))
def test_logits_may_be_shifted(reference, shift):
    found = behaviour(reference, reference + shift)
    assert found.kl_max < 1e-9
    assert found.rows == 4


@given(rows, rows)
def test_probabilities_and_logits_tell_the_same(reference, candidate):
    logits = behaviour(reference, candidate)
    probabilities = behaviour(softmax(reference), softmax(candidate), "probabilities")
    assert probabilities.kl_sum == pytest.approx(logits.kl_sum, rel=1e-6, abs=1e-9)


@given(rows, hnp.arrays(np.float64, (4, 5), elements=st.floats(-1, 1)))
def test_an_error_loses_no_margin_over_twice_its_size(reference, error):
    found = behaviour(reference, reference + error)
    assert found.lost_margin <= 2 * np.abs(error).max() + 1e-12


def test_a_changed_choice_is_counted_with_its_margin():
    found = behaviour([[3.0, 1.0, 0.0], [5.0, 1.0, 0.0]], [[0.0, 9.0, 0.0], [5.0, 1.0, 0.0]])
    assert (found.rows, found.agreed, found.lost_margin) == (2, 1, 2.0)


def test_a_veto_in_both_adds_nothing():
    found = behaviour([0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0])
    assert (found.rows, found.kl_sum, found.agreed) == (1, 0, 1)


def test_an_underflow_to_zero_is_not_an_infinite_divergence():
    found = behaviour([1.0 - 1e-50, 1e-50], [1.0, 0.0], "probabilities")
    assert 0 <= found.kl_max < 1e-40


def test_a_lost_outcome_is_a_large_divergence():
    assert behaviour([0.5, 0.5], [1.0, 0.0], "probabilities").kl_max > 300


@pytest.mark.parametrize("row", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 0.0]])
def test_rows_that_are_no_distribution_are_left_out(row):
    assert behaviour(row, [0.0, 1.0]).rows == 0
    assert behaviour([0.0, 1.0], row).rows == 0


def test_an_infinite_margin_is_a_finite_number():
    found = behaviour([0.0, -np.inf], [-np.inf, 0.0])
    assert found.lost_margin == np.finfo(np.float64).max


def test_a_single_outcome_has_no_margin():
    found = behaviour([[2.0]], [[3.0]])
    assert (found.agreed, found.kl_max) == (1, 0)


@given(rows, rows)
def test_merging_is_adding(reference, candidate):
    together = behaviour(reference, candidate)
    first, second = (behaviour(reference[s], candidate[s]) for s in (slice(2), slice(2, 4)))
    first.merge(second)
    assert first.kl_sum == pytest.approx(together.kl_sum)
    assert (first.rows, first.agreed, first.kl_max, first.lost_margin) == (
        together.rows, together.agreed, together.kl_max, together.lost_margin,
    )  # fmt: skip
