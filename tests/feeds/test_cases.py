"""cases: which shapes and contents a proof runs, in which order, and that they can be repeated."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.artifacts import DimRange, TensorSpec, corners
from toolkit.errors import RecipeError
from toolkit.feeds import cases

IDS = TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=50)
MASK = TensorSpec("attention_mask", "int64", ("batch", "sequence"), role="mask")
IMAGE = TensorSpec("image", "float32", ("batch", 1, 4, 4))
SHAPES = {"batch": DimRange(1, 3, 6), "sequence": DimRange(1, 8, 12)}


@st.composite
def ranges(draw):
    low, opt, high = sorted(draw(st.lists(st.integers(1, 30), min_size=3, max_size=3)))
    return DimRange(low, opt, high)


@given(ranges(), ranges(), st.integers(0, 9))
@settings(max_examples=40)
def test_every_corner_of_every_dimension_is_run(batch, sequence, count):
    shapes = {"batch": batch, "sequence": sequence}
    made = cases([IDS, MASK], shapes, seed=0, count=count)
    run = [dict(case.dims) for case in made if case.kind == "corner"]
    assert sorted(run, key=str) == sorted(corners(shapes), key=str)
    assert len({case.name for case in made}) == len(made)
    assert sum(case.kind == "random" for case in made) == count
    for case in made:
        for name, size in case.dims.items():
            assert shapes[name].min <= size <= shapes[name].max


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_asking_for_more_cases_changes_none_of_the_others(seed):
    few = cases([IDS, MASK], SHAPES, seed=seed, count=2)
    many = cases([IDS, MASK], SHAPES, seed=seed, count=5)
    assert [case.name for case in many[: len(few)]] == [case.name for case in few]
    for one, other in zip(few, many, strict=False):
        for name, values in one.feeds().items():
            np.testing.assert_array_equal(values, other.feeds()[name])


def test_feeds_have_the_shape_the_case_promises_and_repeat():
    for case in cases([IDS, MASK, IMAGE], SHAPES, seed=3, count=3):
        first, second = case.feeds(), case.feeds()
        assert first["input_ids"].shape == (case.dims["batch"], case.dims["sequence"])
        assert first["image"].shape == (case.dims["batch"], 1, 4, 4)
        np.testing.assert_array_equal(first["image"], second["image"])


def test_a_case_keeps_its_contents_when_the_cases_around_it_change():
    def ids(shapes):
        made = {case.name: case for case in cases([IDS, MASK], shapes, seed=0, count=0)}
        return made["corner: batch=3 sequence=8"].feeds()["input_ids"]

    wider = {"batch": DimRange(1, 2, 3), "sequence": DimRange(2, 8, 20)}
    np.testing.assert_array_equal(ids(SHAPES), ids(wider))


def test_another_seed_draws_other_contents():
    one, other = (cases([IMAGE], SHAPES, seed=seed, count=0)[0] for seed in (0, 1))
    assert one.name == other.name
    assert not np.array_equal(one.feeds()["image"], other.feeds()["image"])


def test_the_most_telling_cases_come_first():
    kinds = list(dict.fromkeys(c.kind for c in cases([IDS, MASK], SHAPES, seed=0, count=2)))
    assert kinds == ["corner", "padded", "near corner", "adversarial", "random"]
    names = [c.name for c in cases([IDS, MASK], SHAPES, seed=0, count=2)]
    assert names[:3] == [
        "corner: batch=3 sequence=8",
        "corner: batch=1 sequence=1",
        "corner: batch=6 sequence=12",
    ]


def test_corners_are_unpadded_and_padded_cases_are_padded():
    made = cases([IDS, MASK], SHAPES, seed=0, count=0)
    for case in made:
        if case.kind == "corner":
            assert (case.feeds()["attention_mask"] == 1).all()
    padded = next(case for case in made if case.kind == "padded")
    assert (padded.feeds()["attention_mask"] == 0).any()


def test_near_corners_are_one_step_inside_one_dimension():
    near = [c.dims for c in cases([IMAGE], SHAPES, seed=0, count=0) if c.kind == "near corner"]
    assert [dims["batch"] for dims in near] == [2, 4, 5]


def test_adversarial_cases_fit_the_inputs():
    def titles(*inputs):
        made = cases(inputs, SHAPES, seed=0, count=0)
        return [c.name.split(":")[0] for c in made if c.kind == "adversarial"]

    assert titles(IMAGE) == ["large magnitudes", "zeros"]
    assert titles(IDS, MASK) == [
        "all padding but one",
        "smallest values",
        "largest values",
        "one value repeated",
        "shortest rows",
    ]


def test_many_dimensions_do_not_explode():
    spec = TensorSpec("x", "float32", tuple("abcdef"))
    shapes = {name: DimRange(1, 2, 4) for name in "abcdef"}
    made = cases([spec], shapes, seed=0, count=0)
    run = [dict(case.dims) for case in made if case.kind == "corner"]
    assert len(run) <= 50
    opt = dict.fromkeys("abcdef", 2)
    for name in "abcdef":
        assert opt | {name: 1} in run
        assert opt | {name: 4} in run
    assert dict.fromkeys("abcdef", 4) in run


def test_a_fixed_shape_has_one_corner_and_no_near_corners():
    made = cases([TensorSpec("x", "float32", (2, 3))], {}, seed=0, count=1)
    assert [c.name for c in made] == ["corner", "large magnitudes", "zeros", "random 0"]


def test_ranges_no_input_uses_are_left_out():
    made = cases([IMAGE], SHAPES, seed=0, count=0)
    assert all(list(case.dims) == ["batch"] for case in made)


def test_a_case_can_be_sent_to_another_process():
    case = cases([IDS, MASK], SHAPES, seed=0, count=0)[0]
    copy = pickle.loads(pickle.dumps(case))
    np.testing.assert_array_equal(copy.feeds()["input_ids"], case.feeds()["input_ids"])


def test_a_dimension_without_a_range_is_refused():
    with pytest.raises(RecipeError) as error:
        cases([IDS], {"batch": DimRange(1, 2, 3)}, seed=0, count=1)
    assert str(error.value) == (
        "input 'input_ids' has dimension 'sequence', which has no range under shapes"
    )
    assert error.value.hint == "for example shapes: {sequence: [1, 8, 32]}"
