"""compare: scale, errors, saturation, mismatches and the worst element, on any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import toolkit.parity.compare as module
from toolkit.parity.compare import compare

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = hnp.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))
spaces = st.sampled_from(["values", "logits", "probabilities"])


@given(arrays, spaces)
def test_identical_outputs_have_no_error(array, space):
    found = compare(array.astype(np.float64), array, space)
    assert (found.rms, found.max, found.mismatches) == (0, 0, 0)
    assert found.n == array.size
    assert found.histogram.total == array.size
    if found.behaviour is not None:
        assert found.behaviour.agreed == found.behaviour.rows
        assert found.behaviour.kl_max == 0


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-9, 9)), st.floats(1e-3, 1e3))
def test_errors_are_relative_to_the_scale(array, factor):
    other = array + 0.01
    one = compare(array, other, "values")
    scaled = compare(array * factor, other * factor, "values")
    if 1.0 not in {
        one.scale,
        scaled.scale,
    }:  # 1.0 stands in for a zero scale, which no factor can change
        assert scaled.rms == pytest.approx(one.rms, rel=1e-6)
        assert scaled.max == pytest.approx(one.max, rel=1e-6)


def test_scale_peak_and_errors_by_hand():
    reference = np.array([[3.0, 0.0], [0.0, -4.0]])
    found = compare(reference, np.array([[3.0, 0.5], [0.0, -4.0]], np.float32), "values")
    assert found.scale == 2.5
    assert found.peak == 4.0
    assert found.max == 0.2
    assert found.rms == pytest.approx(0.1)
    assert found.eps == np.finfo(np.float32).eps
    assert found.worst.index == (0, 1)
    assert (found.worst.reference, found.worst.candidate) == (0.0, 0.5)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((7, 3, 5))
    candidate = (reference + 1e-6 * rng.standard_normal(reference.shape)).astype(np.float32)
    candidate[4, 1, 2] = np.nan
    whole = compare(reference, candidate, "logits")
    monkeypatch.setattr(module, "_BLOCK", 10)
    parts = compare(reference, candidate, "logits")
    assert parts.mismatches == whole.mismatches == 1
    assert parts.max == pytest.approx(whole.max, rel=1e-12)
    assert parts.worst == whole.worst
    assert parts.first_mismatch.index == whole.first_mismatch.index == (4, 1, 2)
    assert parts.rms == pytest.approx(whole.rms, rel=1e-12)
    np.testing.assert_array_equal(parts.histogram.counts, whole.histogram.counts)
    assert parts.behaviour.rows == whole.behaviour.rows == 20


@pytest.mark.parametrize(
    ("reference", "candidate", "mismatches"),
    [
        (-np.inf, -np.inf, 0),
        (np.inf, np.inf, 0),
        (np.nan, np.nan, 0),
        (-np.inf, np.float32(-3.4e38), 0),
        (np.finfo(np.float64).min, np.finfo(np.float32).min, 0),
        (-np.inf, np.inf, 1),
        (-np.inf, -80.0, 1),
        (-80.0, -np.inf, 1),
        (1.0, np.nan, 1),
        (np.nan, 1.0, 1),
        (np.nan, np.inf, 1),
        (-np.inf, np.nan, 1),
    ],
)
def test_saturated_and_missing_values(reference, candidate, mismatches):
    found = compare(np.array([1.0, reference]), np.array([1.0, candidate], np.float32), "logits")
    assert found.mismatches == mismatches
    assert (found.first_mismatch is not None) == (mismatches > 0)
    assert found.max == 0
    assert found.scale == 1 or reference == -80.0


def test_a_mask_value_does_not_hide_an_error_in_the_scale():
    reference = np.array([1.0, -1.0, np.finfo(np.float64).min])
    found = compare(reference, np.array([1.1, -1.0, -3.4028235e38], np.float32), "logits")
    assert found.scale == 1
    assert found.max == pytest.approx(0.1, rel=1e-6)


def test_half_precision_has_its_own_spacing_and_limit():
    reference = np.array([1.0, 1e5])
    found = compare(reference, np.array([1.0, np.inf], np.float16), "values")
    assert found.eps == np.finfo(np.float16).eps
    assert found.mismatches == 0


def test_integers_count_in_whole_units():
    found = compare(np.array([1000, 2000]), np.array([1000, 2003]), "values")
    assert (found.scale, found.eps, found.max) == (1, 0, 3)


def test_booleans_are_compared_as_numbers():
    found = compare(np.array([True, False]), np.array([True, True]), "values")
    assert found.max == 1
    assert found.worst.index == (1,)
