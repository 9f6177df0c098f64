"""Gating, dispatch and experts' linear layers: bodies in ONNX Runtime against numpy in float64."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from graphs.ops import CONTRACTS, DOMAIN, VERSION
from tests.graphs.models import session

GATED = ("weights", "ids", "token_of_row", "row_of_slot", "offsets", "active")
LINEAR = ("ExpertLinear", "ExpertLinearBias")
KINDS = {"float16": 10, "float32": 1}


@functools.cache
def operator(name: str, inputs: tuple[tuple[str, str, int], ...], **attributes: float):
    """An operator alone: inputs are names, dtypes and ranks."""
    contract = CONTRACTS[name]
    kinds = {**KINDS, "int64": 7, "bool": 9}
    outputs = [p.name for p in contract.outputs]
    graph = helper.make_graph(
        [helper.make_node(name, [n for n, _, _ in inputs], outputs, domain=DOMAIN, **attributes)],
        name,
        [helper.make_tensor_value_info(n, kinds[d], [None] * rank) for n, d, rank in inputs],
        [
            helper.make_tensor_value_info(p.name, kinds[p.dtypes[0]] if name not in LINEAR else 1,
                                          [None] * len(p.shape))
            for p in contract.outputs
        ],
    )  # fmt: skip
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[ir.serde.serialize_function(contract.function(20))],
        ir_version=10,
    )
    ready = session(model.SerializeToString())
    return lambda *arrays: ready.run(
        None, dict(zip([n for n, _, _ in inputs], arrays, strict=True))
    )


def gate(logits: np.ndarray, **attributes: float) -> dict[str, np.ndarray]:
    dtype = str(logits.dtype)
    call = operator(
        "TopKGating", (("logits", dtype, 2),), num_experts=logits.shape[1], **attributes
    )
    return dict(zip(GATED, call(logits), strict=True))


def best_first(scores: np.ndarray, k: int) -> np.ndarray:
    """The k largest, ties to the lowest place."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


# Few distinct values: ties are the rule.
LOGITS = st.integers(1, 9).flatmap(
    lambda count: hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 7), st.just(count)),
        elements=st.sampled_from([-3.0, -0.5, 0.0, 0.0, 0.25, 2.0, 80.0]),
    )
)


@settings(deadline=None)
@given(logits=LOGITS, data=st.data())
def test_softmax_gating_by_its_definition(logits, data):
    k = data.draw(st.integers(1, logits.shape[1]))
    normalize = data.draw(st.integers(0, 1))
    found = gate(logits, k=k, normalize=normalize, scale=1.5)
    ids = best_first(logits, k)
    np.testing.assert_array_equal(found["ids"], ids)
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    chosen = np.take_along_axis(odds, ids, 1)
    weights = 1.5 * chosen / (chosen if normalize else odds).sum(1, keepdims=True)
    np.testing.assert_allclose(found["weights"], weights, rtol=3e-6, atol=1e-30)


@settings(deadline=None)
@given(logits=LOGITS, data=st.data())
def test_dispatch_sorts_slots_by_expert_and_stably(logits, data):
    k = data.draw(st.integers(1, logits.shape[1]))
    found = gate(logits, k=k)
    flat = found["ids"].ravel()
    order = np.argsort(flat, kind="stable")
    np.testing.assert_array_equal(found["token_of_row"], order // k)
    np.testing.assert_array_equal(found["row_of_slot"][order], np.arange(len(flat)))
    counts = np.bincount(flat, minlength=logits.shape[1])
    np.testing.assert_array_equal(found["offsets"], np.concatenate([[0], np.cumsum(counts)]))
    np.testing.assert_array_equal(found["active"], counts > 0)
    alone = operator("ExpertDispatch", (("ids", "int64", 2),), num_experts=logits.shape[1])
    for one, other in zip(alone(found["ids"]), list(found.values())[2:], strict=True):
        np.testing.assert_array_equal(one, other)


def grouped(logits, bias, k, *, groups, top_groups, group_top, sigmoid, normalize, scale=2.5):
    """DeepSeek's routing (arXiv:2412.19437, section 2.1.2), token by token."""
    weights, ids = [], []
    for row in logits.astype(np.float64):
        softmax = np.exp(row - row.max())
        scores = 1 / (1 + np.exp(-row)) if sigmoid else softmax / softmax.sum()
        biased = (scores + bias).reshape(groups, -1)
        best = -np.sort(-biased, axis=1)[:, :group_top].sum(1)
        kept = np.argsort(-best, kind="stable")[:top_groups]
        open_ = np.isin(np.arange(groups), kept)[:, None]
        candidates = np.where(open_, biased, -np.inf).ravel()
        chosen = np.argsort(-candidates, kind="stable")[:k]
        ids.append(chosen)
        total = scores[chosen].sum() if normalize else 1
        weights.append(scale * scores[chosen] / total)
    return np.array(weights), np.array(ids)


@pytest.mark.parametrize("sigmoid", [0, 1])
@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize(("groups", "top_groups", "group_top"), [(1, 1, 1), (4, 2, 2), (4, 3, 1)])
def test_grouped_gating_by_its_definition(sigmoid, normalize, groups, top_groups, group_top):
    random = np.random.default_rng(groups + top_groups)
    logits = random.normal(size=(64, 16)).astype(np.float32)
    bias = random.normal(size=16).astype(np.float32)
    sizes = {"groups": groups, "top_groups": top_groups, "group_top": group_top}
    call = operator(
        "GroupedTopKGating", (("logits", "float32", 2), ("bias", "float32", 1)), num_experts=16,
        k=3, sigmoid=sigmoid, normalize=normalize, scale=2.5, **sizes,
    )  # fmt: skip
    found = dict(zip(GATED, call(logits, bias), strict=True))
    weights, ids = grouped(logits, bias, 3, **sizes, sigmoid=sigmoid, normalize=normalize)
    np.testing.assert_array_equal(found["ids"], ids)
    np.testing.assert_allclose(found["weights"], weights, rtol=3e-6)


def test_sigmoids_that_all_underflow_give_no_weight():
    call = operator(
        "GroupedTopKGating", (("logits", "float32", 2), ("bias", "float32", 1)), num_experts=4, k=2,
    )  # fmt: skip
    weights, ids, *_ = call(np.full((1, 4), -200, np.float32), np.zeros(4, np.float32))
    np.testing.assert_array_equal(weights, [[0, 0]])
    np.testing.assert_array_equal(ids, [[0, 1]])


def test_half_precision_logits_are_weighed_in_float32():
    logits = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float16)
    found, wanted = gate(logits, k=2), gate(logits.astype(np.float32), k=2)
    assert found["weights"].dtype == np.float32
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers_of_experts(spread, bias):
    random = np.random.default_rng(spread)
    ids = random.integers(0, 5, (6, 3))
    x = random.normal(size=(18 // spread, 4)).astype(np.float32)
    weight = random.normal(size=(5, 7, 4)).astype(np.float32)
    offset = random.normal(size=(5, 7)).astype(np.float32)
    inputs = [("x", "float32", 2), ("ids", "int64", 2), ("weight", "float32", 3)]
    arrays = [x, ids, weight]
    if bias:
        inputs.append(("bias", "float32", 2))
        arrays.append(offset)
    name = "ExpertLinearBias" if bias else "ExpertLinear"
    (found,) = operator(name, tuple(inputs), spread=spread)(*arrays)
    wanted = [
        weight[e].astype(np.float64) @ x[s // spread] + bias * offset[e]
        for s, e in enumerate(ids.ravel())
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
