"""The operators of gated ensembles against PyTorch's definition in float64, and their laws."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import checker, helper

from graphs.gated_ops import GATED
from graphs.ops import CONTRACTS, DOMAIN, VERSION
from tests.graphs.models import session
from toolkit.runtime import GateRule, interpolate, interpolate_gated, log_weights

COMBINERS = ("GatedLinearInterpolation", "GatedLogLinearInterpolation", "GatedWeightedMean")
MEANING = {
    "GatedLinearInterpolation": ("linear", "logits"),
    "GatedLogLinearInterpolation": ("log_linear", "logits"),
    "GatedWeightedMean": ("linear", "values"),
}
KINDS = {"float16": 10, "float32": 1, "float64": 11}
FINITE = st.floats(-30, 30, width=32)
MODERATE = st.one_of(FINITE, st.just(float("-inf")))
WILD = st.one_of(MODERATE, st.just(float("inf")), st.just(float("nan")), st.just(2.0**100))


@functools.cache
def operator(name, dtype="float32", rank=3):
    """The operator alone: stacked members of ``rank``, or scores, and what else it takes."""
    contract = CONTRACTS[name]
    wide = "float64" if dtype == "float64" else "float32"
    kinds = {
        "members": (KINDS[dtype], rank), "log_weights": (KINDS[wide], rank),
        "scores": (KINDS[wide], rank), "top_k": (7, 0), "earlier": (9, 2),
    }  # fmt: skip
    first = contract.inputs[0]
    given = rank if first.name == "scores" else rank - 1
    graph = helper.make_graph(
        [helper.make_node(name, [p.name for p in contract.inputs], ["out"], domain=DOMAIN)],
        name,
        [
            helper.make_tensor_value_info(p.name, kinds[p.name][0], [None] * kinds[p.name][1])
            for p in contract.inputs
        ],
        [helper.make_tensor_value_info("out", kinds[first.name][0], [None] * given)],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    function = ir.serde.serialize_function(contract.function(20))
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    checker.check_model(model)
    ready = session(model.SerializeToString())
    return lambda **feeds: ready.run(None, feeds)[0]


def gate(scores, top_k=None, activation="softmax"):
    """Log weights from the operator."""
    count = scores.shape[-1]
    name = {"softmax": "GateSoftmax", "softplus": "GateSoftplus"}[activation]
    wide = scores.dtype.name
    return operator(name, wide, scores.ndim)(
        scores=scores,
        top_k=np.array(top_k or count, np.int64),
        earlier=np.tri(count, k=-1, dtype=bool),
    )


def combined(name, members, logs, dtype="float32"):
    """Members [M, ..., V] by log weights [..., M]."""
    wide = "float64" if dtype == "float64" else "float32"
    rows = np.moveaxis(logs, -1, 0)
    column = rows.reshape(*rows.shape, *[1] * (members.ndim - rows.ndim)).astype(wide)
    return operator(name, dtype, members.ndim)(members=members.astype(dtype), log_weights=column)


def meaning(name, members, logs):
    parts = [torch.from_numpy(part.astype(np.float64)) for part in members]
    return interpolate_gated(parts, torch.from_numpy(logs.astype(np.float64)), *MEANING[name])


@st.composite
def cases(draw, elements=MODERATE, least=1):
    """Members [M, 2, V] and scores [2, M]."""
    shape = (draw(st.integers(least, 4)), 2, draw(st.integers(1, 5)))
    members = draw(hnp.arrays(np.float32, shape, elements=elements))
    scores = draw(hnp.arrays(np.float32, (2, shape[0]), elements=st.floats(-200, 200, width=32)))
    return members, scores


def close(found, wanted, scale=60.0, roundings=3e-6):
    """Equal where infinite or NaN; elsewhere a few dozen roundings of numbers up to ``scale``."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])
    size = np.maximum(np.abs(wanted[finite]), scale)
    assert np.all(np.abs(found[finite] - wanted[finite]) <= roundings * size)


@pytest.mark.parametrize("activation", ["softmax", "softplus"])
@given(data=st.data())
def test_a_gate_keeps_the_top_scores_and_of_equals_the_first(activation, data):
    count = data.draw(st.integers(1, 5))
    values = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-200, 200, width=32))
    scores = data.draw(hnp.arrays(np.float32, (3, count), elements=values))
    top_k = data.draw(st.one_of(st.none(), st.integers(1, count)))
    wanted = log_weights(torch.from_numpy(scores).double(), GateRule("", top_k, activation)).numpy()
    close(gate(scores, top_k, activation), wanted, scale=200)
    assert np.all((wanted > -np.inf).sum(-1) == (top_k or count))


def test_ties_go_to_the_lowest_index():
    found = gate(np.array([[1, 2, 2, 0], [0, 0, 0, 0]], np.float32), top_k=1)
    assert found.tolist() == [[-np.inf, 0, -np.inf, -np.inf], [0, -np.inf, -np.inf, -np.inf]]


def test_softplus_keeps_its_digits_where_it_underflows():
    scores = np.array([[-300.0, -90.0, -13.0, -11.5, -1.0, 20.0]])
    wanted = [-300.0, -90.0, np.log(np.log1p(np.exp(-13.0))), np.log(np.log1p(np.exp(-11.5)))]
    close(gate(scores.astype(np.float32), activation="softplus")[0, :4], wanted, 1, 4e-7)
    close(gate(scores, activation="softplus")[0, :4], wanted, 1, 1e-14)


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(), top_k=st.integers(1, 4))
def test_every_case_agrees_with_the_definition(name, case, top_k):
    members, scores = case
    if name == "GatedWeightedMean":
        members = np.nan_to_num(members, neginf=-1.0)
    logs = gate(scores, min(top_k, len(members)))
    close(combined(name, members, logs), meaning(name, members, logs))


@pytest.mark.parametrize("name", COMBINERS)
@pytest.mark.parametrize(
    ("dtype", "roundings"), [("float16", 1e-3), ("float32", 5e-7), ("float64", 1e-15)]
)
def test_every_precision_keeps_its_digits(name, dtype, roundings):
    rng = np.random.default_rng(0)
    members = rng.normal(scale=3, size=(3, 4, 5, 7)).astype(dtype)
    logs = np.log(rng.dirichlet(np.ones(3), (4, 5))).astype("f8" if dtype == "float64" else "f4")
    found = combined(name, members, logs, dtype)
    assert found.dtype == dtype
    close(found, meaning(name, members, logs), 5, roundings)


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(WILD))
def test_nan_only_where_the_definition_has_none_but_nan(name, case):
    members, scores = case
    logs = gate(scores, 1)
    wanted = meaning(name, members, logs).numpy()
    found = combined(name, members, logs)
    assert not np.any(np.isnan(found) & ~np.isnan(wanted))


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(WILD, least=2))
def test_a_weight_of_zero_silences_a_member_whatever_it_says(name, case):
    members, scores = case
    logs = gate(scores, len(members) - 1)
    other = np.where(np.isneginf(logs).T[..., None], np.float32(np.nan), members)
    before, after = combined(name, members, logs), combined(name, other, logs)
    assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(FINITE), data=st.data())
def test_one_hot_weights_give_that_member(name, case, data):
    members, scores = case
    chosen = data.draw(st.integers(0, len(members) - 1))
    scores[:, chosen] = 201
    wanted = torch.from_numpy(members[chosen]).double()
    wanted = wanted if name == "GatedWeightedMean" else torch.log_softmax(wanted, -1)
    close(combined(name, members, gate(scores, 1)), wanted)


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(FINITE))
def test_an_ensemble_of_equals_is_the_member(name, case):
    members, scores = case
    wanted = torch.from_numpy(members[0]).double()
    wanted = wanted if name == "GatedWeightedMean" else torch.log_softmax(wanted, -1)
    equals = np.broadcast_to(members[:1], members.shape)
    close(combined(name, equals, gate(scores)), wanted)


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(FINITE), data=st.data())
def test_the_order_of_members_does_not_matter(name, case, data):
    members, scores = case
    order = data.draw(st.permutations(range(len(members))))
    one = combined(name, members, gate(scores))
    close(combined(name, members[order], gate(scores[:, order])), one)


@pytest.mark.parametrize("name", COMBINERS)
@given(case=cases(MODERATE))
def test_a_constant_gate_is_the_constant_ensemble(name, case):
    members, scores = case
    if name == "GatedWeightedMean":
        members = np.nan_to_num(members, neginf=-1.0)
    scores = np.clip(np.broadcast_to(scores[:1], scores.shape), -20, 20).copy()
    weights = torch.softmax(torch.from_numpy(scores[0]).double(), -1).tolist()
    parts = [torch.from_numpy(part).double() for part in members]
    kind, space = MEANING[name]
    wanted = interpolate(parts, weights, kind, space)
    close(combined(name, members, gate(scores)), wanted)


def test_a_weight_that_underflows_still_decides_and_still_vetoes():
    silent, sure = np.array([[0.0, 0.0]]), np.array([[0.0, -np.inf]])
    members = np.stack([sure, silent]).astype(np.float32)
    logs = gate(np.array([[0.0, -150.0]], np.float32))
    assert np.exp(logs[0, 1]) == 0
    mixed = combined("GatedLinearInterpolation", members, logs)
    np.testing.assert_allclose(mixed, [[0, -150 - np.log(2)]], atol=1e-5)
    vetoed = combined("GatedLogLinearInterpolation", members[::-1], logs)
    assert vetoed.tolist() == [[0, -np.inf]]


def test_where_everything_is_vetoed_the_result_is_minus_infinity():
    members = np.array([[[-np.inf, 0]], [[0, -np.inf]]], np.float32)
    found = combined("GatedLogLinearInterpolation", members, gate(np.zeros((1, 2), np.float32)))
    assert found.tolist() == [[-np.inf, -np.inf]]


@pytest.mark.parametrize("contract", GATED, ids=lambda contract: contract.name)
def test_contracts_are_flat_and_match_their_bodies(contract):
    function = contract.function(18)
    assert [value.name for value in function.inputs] == [p.name for p in contract.inputs]
    assert [value.name for value in function.outputs] == [p.name for p in contract.outputs]
    assert {node.domain for node in function} == {""}, "a body calls no function"
