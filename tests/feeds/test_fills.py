"""make_feeds: dtype, shape, range and mask promises, for every fill."""

from __future__ import annotations

import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError
from toolkit.feeds import Fill, make_feeds

FILLS = typing.get_args(Fill)
INTEGERS = ["int64", "int32", "int16", "int8", "uint8"]
FLOATS = ["float64", "float32", "float16", "bfloat16"]
dims = st.fixed_dictionaries({"batch": st.integers(1, 5), "sequence": st.integers(1, 9)})
fills = st.sampled_from(FILLS)
seeds = st.integers(0, 2**32)


def draw(spec, dims, seed, fill):
    return make_feeds([spec], dims, np.random.default_rng(seed), fill)[spec.name]


@given(
    dims, fills, seeds, st.sampled_from(INTEGERS), st.tuples(st.integers(0, 50), st.integers(1, 70))
)
def test_integers_stay_in_their_range(dims, fill, seed, dtype, bounds):
    low, span = bounds
    spec = TensorSpec("ids", dtype, ("batch", "sequence"), low=low, high=low + span)
    values = draw(spec, dims, seed, fill)
    assert values.dtype == dtype
    assert values.shape == (dims["batch"], dims["sequence"])
    assert low <= values.min()
    assert values.max() < low + span


@given(dims, fills, seeds, st.sampled_from(FLOATS), st.tuples(st.floats(-4, 4), st.floats(0.5, 8)))
@settings(max_examples=200)
def test_floats_stay_in_their_range_even_in_narrow_types(dims, fill, seed, dtype, bounds):
    low, span = bounds
    spec = TensorSpec("x", dtype, ("batch", 3), low=low, high=low + span)
    values = draw(spec, dims, seed, fill).astype(np.float64)
    assert low <= values.min()
    assert values.max() < low + span


@given(dims, fills, seeds, st.sampled_from(["int64", "float32", "bool"]))
def test_masks_are_ones_then_padding_with_at_least_one_valid_position(dims, fill, seed, dtype):
    spec = TensorSpec("mask", dtype, ("batch", "sequence"), role="mask")
    mask = draw(spec, dims, seed, fill)
    assert mask.dtype == dtype
    numbers = mask.astype(int)
    assert set(np.unique(numbers)) <= {0, 1}
    if fill == "left":
        numbers = numbers[:, ::-1]
    assert (np.diff(numbers, axis=1) <= 0).all()
    assert (numbers[:, 0] == 1).all()


@given(dims, fills, seeds)
def test_the_same_seed_draws_the_same_arrays(dims, fill, seed):
    specs = [
        TensorSpec("ids", "int64", ("batch", "sequence"), low=0, high=99),
        TensorSpec("mask", "int64", ("batch", "sequence"), role="mask"),
        TensorSpec("x", "float32", ("batch", 2, "sequence")),
        TensorSpec("flag", "bool", ("batch",)),
    ]
    first, second = (make_feeds(specs, dims, np.random.default_rng(seed), fill) for _ in "ab")
    assert list(first) == [spec.name for spec in specs]
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_fills_mean_what_they_say():
    ids = TensorSpec("ids", "int64", (3, 8), low=2, high=30)
    mask = TensorSpec("mask", "int64", (3, 8), role="mask")
    x = TensorSpec("x", "float32", (3, 50))
    assert (draw(ids, {}, 0, "smallest") == 2).all()
    assert (draw(ids, {}, 0, "largest") == 29).all()
    assert (draw(ids, {}, 0, "zeros") == 2).all()
    repeated = draw(ids, {}, 0, "repeated")
    assert (repeated == repeated[:, :1]).all()
    assert len(np.unique(repeated)) > 1
    assert (draw(mask, {}, 0, "full") == 1).all()
    assert (draw(mask, {}, 0, "single_valid").sum(axis=1) == 1).all()
    assert len(np.unique(draw(mask, {}, 0, "random").sum(axis=1))) > 1
    assert (draw(x, {}, 0, "zeros") == 0).all()
    assert np.abs(draw(x, {}, 0, "large")).max() > 50
    assert np.abs(draw(x, {}, 0, "full")).max() < 10


def test_large_magnitudes_of_a_bounded_input_are_its_two_ends():
    spec = TensorSpec("pixels", "float32", (4, 64), low=0, high=16)
    assert set(np.unique(draw(spec, {}, 0, "large"))) == {0.0, np.nextafter(np.float32(16), 0)}


def test_integers_without_bounds_are_valid_for_any_table():
    assert set(np.unique(draw(TensorSpec("ids", "int64", (100,)), {}, 0, "random"))) == {0, 1}


def test_bytes_without_bounds_use_their_whole_range():
    assert draw(TensorSpec("pixels", "uint8", (2000,)), {}, 0, "random").max() > 250


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_an_empty_range_is_refused(dtype):
    with pytest.raises(RecipeError) as error:
        draw(TensorSpec("x", dtype, (2,), low=3, high=3), {}, 0, "random")
    assert str(error.value) == f"input 'x' has no valid {dtype} value in the range [3, 3)"
    assert error.value.hint == "low is inclusive, high is exclusive"
