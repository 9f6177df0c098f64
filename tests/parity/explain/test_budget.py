"""How far a value is from its reference, and how far it may be."""

from __future__ import annotations

import numpy as np
import pytest

import graphs
from toolkit.parity.explain.budget import Error, measure, rounding, times_healthy
from toolkit.parity.explain.frontier import frontier
from toolkit.parity.explain.traces import chunked

EPS = 2.0**-23


def test_errors_are_absolute_and_the_worst_is_pointed_at():
    reference = np.array([[3.0, 4.0], [0.0, 0.0]])
    error = measure(reference, np.array([[3.0, 4.0], [0.0, 2.0]], np.float32))
    assert (error.rms, error.max, error.scale, error.peak) == (1.0, 2.0, 2.5, 4.0)
    assert (error.index, error.reference, error.found) == ((1, 1), 0.0, 2.0)
    assert error.comparable


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_on_one_side_alone_is_not_comparable(value):
    reference = np.array([1.0, 2.0, 3.0])
    error = measure(reference, np.array([1.0, value, 3.0], np.float32))
    assert not error.comparable
    assert error.index == (1,)


def test_masks_and_nan_on_both_sides_are_equal():
    """A mask of the most negative float32 is infinite once something is added to it."""
    reference = np.array([1.0, -6.8e38, np.nan, np.inf])
    error = measure(reference, np.array([1.0, -np.inf, np.nan, np.inf], np.float32))
    assert error.comparable
    assert (error.max, error.peak) == (0.0, 1.0)
    opposite = measure(np.array([np.inf]), np.array([-np.inf], np.float32))
    assert not opposite.comparable


def test_another_shape_is_not_comparable_and_nothing_has_no_error():
    assert not measure(np.zeros(3), np.zeros((3, 1), np.float32)).comparable
    assert measure(np.zeros((0, 3)), np.zeros((0, 3), np.float32)) == Error()
    assert measure(np.float64(2.0), np.float32(2.5)).index == ()


def test_whole_numbers_have_no_rounding():
    assert rounding(np.dtype(np.int64)) == rounding(np.dtype(bool)) == 0.0
    error = measure(np.array([1, 2]), np.array([1, 3]))
    assert times_healthy(error, Error(), None, 1.0, 0.0)[0] == np.inf
    assert times_healthy(Error(), Error(), None, 1.0, 0.0)[0] == 0.0


def test_the_unit_is_the_twins_error_and_at_least_a_rounding():
    error = Error(rms=1e-5, max=1e-5, scale=1.0, peak=1.0)
    twin = Error(rms=1e-6, max=1e-6, scale=1.0, peak=1.0)
    assert times_healthy(error, twin, None, 1.0, EPS)[0] == pytest.approx(10)
    assert times_healthy(error, Error(), None, 1.0, EPS)[0] == pytest.approx(1e-5 / EPS)


def test_a_twin_that_is_wrong_itself_does_not_set_the_unit():
    wrong = Error(rms=0.1, max=0.1, scale=1.0, peak=1.0)
    pytorch = Error(rms=1e-7, max=1e-7, scale=1.0, peak=1.0)
    assert times_healthy(wrong, wrong, None, 1.0, EPS)[0] == pytest.approx(1)
    assert times_healthy(wrong, wrong, pytorch, 1.0, EPS)[0] > 1000


def test_coarser_arithmetic_has_a_larger_healthy_error():
    error = Error(rms=8e-3, max=8e-3, scale=1.0, peak=1.0)
    twin = Error(rms=1e-6, max=1e-6, scale=1.0, peak=1.0)
    assert times_healthy(error, twin, None, 2.0**13, 2.0**-10)[0] < 4


def test_chunks_are_neighbours_within_the_limit():
    sizes = {"a": 3, "b": 3, "c": 3, "d": 9, "e": 1}
    assert list(chunked(list("abcde"), sizes, 6)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(chunked([], {}, 6)) == []


def node(name, *inputs):
    return graphs.NodeOutline(name, "Op", inputs, (f"{name}'",), {})


CHAIN = (node("a", "x"), node("b", "a'"), node("c", "b'"), node("d", "c'", "y"))


@pytest.mark.parametrize(
    ("left", "named"),
    [
        ({"b'", "c'", "d'"}, ["b"]),
        ({"b'", "d'"}, ["b"]),  # an error that fades and grows again has its cause in front
        ({"d'"}, ["d"]),
        (set(), []),
    ],
)
def test_the_frontier_is_where_wrong_values_begin(left, named):
    assert [edge.node.name for edge in frontier(CHAIN, lambda name: name in left)] == named


def test_values_without_a_counterpart_are_carried_along():
    (edge,) = frontier(CHAIN, {"a'": False, "b'": None, "c'": None, "d'": True}.get)
    assert edge.node.name == "d"
    assert [made.name for made in edge.through] == ["b", "c"]
