"""The traced program says what every value inside should be, in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.runtime import ProgramTrace, TracedEnsemble, TracedLeaf, TreeTrace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 3)

    def forward(self, x):
        # An explicit float32, as in many norms and rotary embeddings.
        return torch.tanh(self.lin(x).float()) * 0.1


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its own insides
        return torch.export.export(net, (torch.zeros(2, 4),)).run_decompositions()


X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


def exact(net):
    weight, bias = (p.detach().double().numpy() for p in net.lin.parameters())
    return np.tanh(X @ weight.T + bias) * 0.1


def test_values_are_computed_in_float64_casts_included(net, program):
    trace = ProgramTrace(program, ["x"], ["logits"])
    found = trace({"x": X}, ["logits", "tanh"])
    assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found["logits"], exact(net), rtol=1e-14)
    np.testing.assert_allclose(found["tanh"] * 0.1, exact(net), rtol=1e-14)


def test_the_program_as_it_was_traced_is_in_its_own_precision(net, program):
    trace = ProgramTrace(program, ["x"], ["logits"], lifted=False)
    found = trace({"x": X}, ["logits"])["logits"]
    assert found.dtype == np.float32
    with torch.inference_mode():
        assert np.array_equal(found, net(torch.from_numpy(X)).numpy())


def tree(program, second):
    leaves = (
        TracedLeaf("a", ProgramTrace(program, ["x"], ["logits"]), ("x",)),
        TracedLeaf("b", second, ("x",), {"x": "image"}),
    )
    return TreeTrace(
        TracedEnsemble("e", leaves, (0.5, 0.5), "linear", "values", "logits", ("x", "image"))
    )


def test_a_tree_prefixes_members_follows_renames_and_combines(program):
    both = tree(program, ProgramTrace(program, ["x"], ["logits"]))
    found = both({"x": X, "image": 2 * X}, ["logits", "a/logits", "b/logits"])
    np.testing.assert_allclose(found["logits"], (found["a/logits"] + found["b/logits"]) / 2)
    assert not np.allclose(found["a/logits"], found["b/logits"])
    assert "b/tanh" in both.names


def test_a_member_without_a_trace_leaves_the_combination_out(program):
    partial = tree(program, None)
    assert "logits" not in partial.names
    assert set(partial({"x": X, "image": X}, ["logits", "a/logits"])) == {"a/logits"}


def test_a_program_that_cannot_run_is_reported_and_left_out(program):
    class Broken(ProgramTrace):
        def __call__(self, feeds, wanted):
            raise RuntimeError("no float64 kernel\nmore")

    broken = tree(program, Broken(program, ["x"], ["logits"]))
    found = broken({"x": X, "image": X}, ["logits", "a/logits", "b/logits"])
    assert set(found) == {"a/logits"}
    assert broken.failures == {"b": "RuntimeError: no float64 kernel"}
