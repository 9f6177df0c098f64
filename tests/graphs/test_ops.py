"""The operators of ours: their bodies in ONNX Runtime against float64 formulas, and their laws."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import checker, helper

from graphs.gated_ops import GATED
from graphs.moe_ops import MOE
from graphs.native_ops import TRT_MOE
from graphs.ops import CONTRACTS, DOMAIN, VERSION
from tests.graphs.models import (
    check_golden,
    linear,
    log_linear,
    log_softmax,
    session,
)

# With weights that a gate computes: test_gated_ops.py; of experts: test_moe_ops.py.
OPERATORS = sorted(set(CONTRACTS) - {contract.name for contract in (*GATED, *MOE, TRT_MOE)})
FORMULAS = {"LinearInterpolation": linear, "LogLinearInterpolation": log_linear}
KINDS = {np.float16: 10, np.float32: 1, np.float64: 11}


@functools.cache
def operator(name: str, dtype: type = np.float32, rank: int = 3):
    """The operator alone, weights being an input too."""
    contract = CONTRACTS[name]
    function = ir.serde.serialize_function(contract.function(20))
    dims = [None] * rank
    accumulate = np.float64 if dtype is np.float64 else np.float32
    graph = helper.make_graph(
        [helper.make_node(name, ["members", "weights"], ["out"], domain=DOMAIN)],
        name,
        [
            helper.make_tensor_value_info("members", KINDS[dtype], dims),
            helper.make_tensor_value_info("weights", KINDS[accumulate], [None]),
        ],
        [helper.make_tensor_value_info("out", KINDS[dtype], dims[1:])],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    checker.check_model(model, full_check=True)
    ready = session(model.SerializeToString())

    def call(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        feeds = {"members": members.astype(dtype), "weights": weights.astype(accumulate)}
        return ready.run(None, feeds)[0]

    return call


# Logits as networks give them, masked entries, and magnitudes that overflow exp.
LOGITS = st.one_of(
    st.floats(-30, 30, width=32),
    st.just(float("-inf")),
    st.floats(-(2.0**100), 2.0**100, width=32),
)


@st.composite
def stacks(draw, elements=LOGITS):
    """Members [M, 2, V]."""
    shape = (draw(st.integers(1, 4)), 2, draw(st.integers(1, 5)))
    return draw(hnp.arrays(np.float32, shape, elements=elements))


@st.composite
def weighted(draw, elements=LOGITS):
    """Members and weights that sum to 1, some of them 0."""
    members = draw(stacks(elements))
    raw = draw(hnp.arrays(np.float64, len(members), elements=st.sampled_from([0, 0.1, 1, 3])))
    raw = raw if raw.sum() else np.ones(len(members))
    return members, (raw / raw.sum()).astype(np.float32)


def assert_close(found, wanted, scale=1.0):
    """A handful of roundings of the largest term: 2e-6 is 16 ulp of float32 at 1."""
    finite = np.isfinite(wanted)
    assert np.array_equal(found[~finite], wanted[~finite])
    size = np.maximum(np.abs(wanted[finite]), scale)
    assert np.all(np.abs(found[finite] - wanted[finite]) <= 2e-6 * size)


@pytest.mark.parametrize("name", sorted(FORMULAS))
# float32: sums of a dozen terms near 10, each right to 6e-8. float64: the weights are float64 and
# so is the accumulation. float16: accumulated in float32, the one rounding is that of the output.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"),
    [(np.float32, 0, 2e-6), (np.float64, 0, 4e-15), (np.float16, 5e-4, 0)],
)
def test_the_body_computes_the_formula(name, dtype, rtol, atol):
    rng = np.random.default_rng(0)
    members = rng.normal(scale=3, size=(3, 16, 10)).astype(dtype)
    weights = np.array([0.5, 0.3, 0.2])
    found = operator(name, dtype)(members, weights)
    wanted = FORMULAS[name](members, weights if dtype is np.float64 else weights.astype("f"))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_mean_takes_any_rank(rank):
    members = np.random.default_rng(0).normal(size=(3, 2, 4, 5)[:rank])
    weights = np.array([0.5, 0.25, 0.25][: len(members)])
    wanted = np.tensordot(weights, members, 1)
    # Three exact products and two sums in float64.
    np.testing.assert_allclose(
        operator("WeightedMean", np.float64, rank)(members, weights), wanted, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("name", sorted(FORMULAS))
@given(case=weighted(LOGITS))
def test_the_result_is_a_distribution_or_impossible_and_never_nan(name, case):
    members, weights = case
    found = operator(name)(members, weights)
    assert not np.isnan(found).any()
    mass = np.exp(found.astype(np.float64)).sum(-1)
    assert np.all((np.abs(mass - 1) < 1e-5) | (mass == 0) | _partly_silent(name, members))


def _partly_silent(name, members):
    """In a linear mixture a row of -inf carries no mass, and the mixture has less than 1."""
    return np.isneginf(members).all(-1).any(0) if name == "LinearInterpolation" else False


MODERATE = st.one_of(st.floats(-30, 30, width=32), st.just(float("-inf")))


@pytest.mark.parametrize("name", sorted(FORMULAS))
@given(case=weighted(MODERATE))
def test_every_case_agrees_with_the_formula(name, case):
    members, weights = case
    # log softmax subtracts numbers up to 60, each rounded at its own scale.
    assert_close(operator(name)(members, weights), FORMULAS[name](members, weights), scale=60)


@pytest.mark.parametrize("name", sorted(FORMULAS))
@given(members=stacks(MODERATE), data=st.data())
def test_one_hot_weights_give_that_member(name, members, data):
    chosen = data.draw(st.integers(0, len(members) - 1))
    weights = np.eye(len(members))[chosen]
    assert_close(operator(name)(members, weights), log_softmax(members[chosen]), scale=60)


@pytest.mark.parametrize("name", sorted(FORMULAS))
@given(case=weighted(MODERATE))
def test_an_ensemble_of_equals_is_the_member(name, case):
    members, weights = case
    equals = np.broadcast_to(members[:1], members.shape)
    assert_close(operator(name)(equals, weights), log_softmax(members[0]), scale=60)


@pytest.mark.parametrize("name", OPERATORS)
@given(case=weighted(st.floats(-30, 30, width=32)), data=st.data())
def test_the_order_of_members_does_not_matter(name, case, data):
    members, weights = case
    order = list(data.draw(st.permutations(range(len(members)))))
    found = operator(name)(members[order], weights[order])
    # Only the order of a sum of at most four terms differs.
    assert_close(found, operator(name)(members, weights).astype(np.float64), scale=30)


@given(case=weighted(MODERATE))
def test_a_zero_probability_survives_linear_mixing(case):
    members, weights = case
    found = operator("LinearInterpolation")(members, weights)
    voters = members[weights > 0]
    assert np.array_equal(np.isneginf(found), np.isneginf(voters).all(0))


@given(case=weighted(MODERATE))
def test_a_zero_probability_vetoes_in_log_linear_mixing_unless_its_weight_is_zero(case):
    members, weights = case
    found = operator("LogLinearInterpolation")(members, weights)
    voters = members[weights > 0]
    assert np.array_equal(np.isneginf(found), np.isneginf(voters).any(0))


def test_where_everything_is_vetoed_the_result_is_minus_infinity():
    members = np.array([[[-np.inf, 0.0]], [[0.0, -np.inf]]])
    found = operator("LogLinearInterpolation")(members, np.array([0.5, 0.5]))
    assert np.array_equal(found, [[-np.inf, -np.inf]])


def test_a_weight_of_zero_silences_infinities_and_nan_in_the_mean():
    members = np.array([[[np.inf, np.nan]], [[1.0, 2.0]]])
    assert np.array_equal(operator("WeightedMean")(members, np.array([0.0, 1.0])), [[1.0, 2.0]])


def test_tails_that_underflow_as_probabilities_keep_their_logarithm():
    members = np.array([[[0.0, -200.0]], [[0.0, -210.0]]])
    found = operator("LinearInterpolation")(members, np.array([0.5, 0.5]))
    wanted = linear(members, np.array([0.5, 0.5]))
    assert np.exp(np.float32(-200)) == 0
    np.testing.assert_allclose(found, wanted, rtol=2e-7)


@pytest.mark.parametrize("name", OPERATORS)
def test_contracts_are_flat_and_match_their_bodies(name):
    contract = CONTRACTS[name]
    function = contract.function(18)
    assert [value.name for value in function.inputs] == [p.name for p in contract.inputs]
    assert [value.name for value in function.outputs] == [p.name for p in contract.outputs]
    assert {node.domain for node in function} == {""}, "a body calls no function"
    assert not any(
        attr.type.name == "GRAPH" for node in function for attr in node.attributes.values()
    )


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_the_bodies_are_the_stored_text(name):
    from onnx import printer

    proto = ir.serde.serialize_function(CONTRACTS[name].function(20))
    check_golden(f"op_{name}.txt", printer.to_text(proto) + "\n")
