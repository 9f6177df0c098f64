"""Inputs, outputs and shapes of a tree are joined by name; what does not fit is named."""

from __future__ import annotations

import pytest

from toolkit.artifacts import DimRange, TensorSpec
from toolkit.errors import RecipeError
from toolkit.pipeline.interface import join_inputs, resolve_output, resolve_shapes


def spec(name, shape=("batch", 6), dtype="float32", **bounds):
    return TensorSpec(name, dtype, shape, **bounds)


def test_equal_names_are_one_input_with_the_common_range():
    joined = join_inputs(
        [
            ("a", [spec("ids", low=0, high=100)], {}),
            ("b", [spec("tokens", low=1, high=90)], {"tokens": "ids"}),
        ]
    )
    assert joined == (spec("ids", low=1, high=90),)


def test_declared_order_and_meaning_win():
    joined = join_inputs(
        [("a", [spec("y"), spec("x")], {})], declared=[spec("x", role="mask"), spec("y")]
    )
    assert [s.name for s in joined] == ["x", "y"]
    assert joined[0].role == "mask"


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (spec("x", dtype="int64"), r"float32\[batch, 6\] for member 'a' and int64\[batch, 6\]"),
        (spec("x", shape=("batch", 7)), r"and float32\[batch, 7\] for member 'b'"),
        (spec("x", shape=("rows", 6)), r"and float32\[rows, 6\] for member 'b'"),
    ],
)
def test_one_name_with_two_meanings(other, text):
    with pytest.raises(RecipeError, match=text) as found:
        join_inputs([("a", [spec("x")], {}), ("b", [other], {})])
    assert "rename" in found.value.hint


def test_declared_input_that_nobody_takes():
    with pytest.raises(RecipeError, match="input 'z' is declared, but no model takes it") as found:
        join_inputs([("a", [spec("x")], {})], declared=[spec("z"), spec("x")])
    assert "models take x" in found.value.hint


def test_rename_of_an_input_that_does_not_exist():
    with pytest.raises(RecipeError, match="member 'a' renames 'q'") as found:
        join_inputs([("a", [spec("x")], {"q": "x"})])
    assert "its inputs are x" in found.value.hint


def test_output_asked_for_must_be_everybodys():
    members = [("a", ("logits", "hidden")), ("b", ("logits",))]
    assert resolve_output("e", members, None) == "logits"
    assert resolve_output("e", [("a", ("y",)), ("b", ("y", "z"))], None) == "y"
    with pytest.raises(RecipeError, match="combines output 'hidden', which member 'b'") as found:
        resolve_output("e", members, "hidden")
    assert found.value.hint == "a has logits, hidden; b has logits"


@pytest.mark.parametrize(
    ("members", "shared"),
    [([("a", ("p",)), ("b", ("q",))], "no output"), ([("a", ("p", "q"))] * 2, "p, q")],
)
def test_output_that_cannot_be_guessed(members, shared):
    with pytest.raises(RecipeError, match=f"members share {shared}"):
        resolve_output("e", members, None)


def test_dimension_without_range():
    with pytest.raises(RecipeError, match="dimension 'batch' of input 'x' has no range"):
        resolve_shapes([spec("x")], {}, [])


def test_range_without_dimension():
    with pytest.raises(RecipeError, match="no input has this dimension"):
        resolve_shapes([spec("x")], {"batch": DimRange(1, 2, 3), "bathc": DimRange(1, 2, 3)}, [])
