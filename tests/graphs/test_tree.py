"""Trees that cannot be meant are refused before any file is read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from graphs import Combination, Ensemble, GraphError, Leaf

A, B = Leaf("a", Path("a.onnx")), Leaf("b", Path("b.onnx"))


def ensemble(*weights, members=(A, B), kind="linear", space="logits", name="root"):
    return Ensemble(name, members, Combination(kind, space, weights, "logits"))


def refusal(**options) -> GraphError:
    weights = options.pop("weights", (0.5, 0.5))
    with pytest.raises(GraphError) as caught:
        ensemble(*weights, **options)
    return caught.value


def test_the_number_of_weights_must_be_the_number_of_members():
    assert refusal(weights=(1.0,)).message == "ensemble 'root' has 1 weights for 2 members"


@pytest.mark.parametrize("kind", ["linear", "log_linear"])
@pytest.mark.parametrize("weight", [math.nan, math.inf, -0.25])
def test_weights_are_finite_and_not_negative(kind, weight):
    assert refusal(weights=(0.5, weight), kind=kind).message == (
        f"ensemble 'root' gives member 'b' the weight {weight}, wanted a finite number >= 0"
    )


def test_linear_weights_sum_to_one():
    error = refusal(weights=(0.5, 0.3))
    assert error.message == "ensemble 'root' is linear and its weights sum to 0.8, wanted 1"
    assert error.hint == "normalised they are 0.625, 0.375"
    assert ensemble(0.5, 0.5000009)
    assert "sum to 1.000002, wanted 1" in refusal(weights=(0.5, 0.500002)).message


def test_log_linear_weights_need_not_sum_to_one_but_one_is_above_zero():
    assert ensemble(0.5, 2.0, kind="log_linear")
    error = refusal(weights=(0.0, 0.0), kind="log_linear")
    assert error.message == "ensemble 'root' has only weights of 0"


def test_plain_values_are_not_combined_log_linearly():
    error = refusal(kind="log_linear", space="values")
    assert error.message == (
        "ensemble 'root' combines values log-linearly, which is defined for distributions only"
    )


def test_an_ensemble_has_members():
    error = refusal(weights=(), members=())
    assert error.message == "ensemble 'root' has no members, wanted at least one"


def test_names_of_siblings_differ():
    error = refusal(members=(A, Leaf("a", Path("other.onnx"))))
    assert error.message == "ensemble 'root' has 2 members named 'a'"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "interpolation", "-a"])
def test_names_can_prefix_names_in_the_graph(name):
    error = refusal(members=(A, Leaf(name, Path("b.onnx"))))
    assert error.message == (
        f"ensemble 'root' has a member named {name!r}, which cannot prefix names"
    )


def test_an_inner_ensemble_gives_what_the_outer_combines():
    inner = ensemble(0.5, 0.5, space="probabilities", name="inner")
    error = refusal(members=(A, inner))
    assert error.message == (
        "ensemble 'root' combines logits, but its member 'inner' gives probabilities"
    )
