"""The reference for ensembles follows the definitions, written out here a second time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.runtime import EnsembleRunner, Renamed, Weighted
from toolkit.runtime.ensemble import interpolate

logits = st.lists(
    st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4), min_size=2, max_size=4
).map(lambda rows: [torch.tensor(row, dtype=torch.float64) for row in rows])


def uniform(members):
    return [1 / len(members)] * len(members)


@given(logits)
def test_linear_is_the_mean_of_probabilities(members):
    found = interpolate(members, uniform(members), "linear", "logits").exp()
    mean = sum(torch.softmax(z, -1) for z in members) / len(members)
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-15)


@given(logits)
def test_log_linear_is_the_normalised_product(members):
    found = interpolate(members, uniform(members), "log_linear", "logits").exp()
    product = torch.ones(4, dtype=torch.float64)
    for z in members:
        product = product * torch.softmax(z, -1) ** (1 / len(members))
    torch.testing.assert_close(found, product / product.sum(), rtol=1e-11, atol=1e-15)


@given(logits)
@pytest.mark.parametrize("combine", ["linear", "log_linear"])
def test_probabilities_and_logits_agree(combine, members):
    as_logits = interpolate(members, uniform(members), combine, "logits").exp()
    given_probabilities = [torch.softmax(z, -1) for z in members]
    found = interpolate(given_probabilities, uniform(members), combine, "probabilities")
    torch.testing.assert_close(found, as_logits, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("combine", ["linear", "log_linear"])
def test_weight_zero_takes_no_part(combine):
    wild = torch.tensor([-torch.inf, torch.inf, torch.nan])
    plain = torch.tensor([1.0, 2.0, 3.0])
    found = interpolate([wild, plain], [0.0, 1.0], combine, "logits")
    torch.testing.assert_close(found, torch.log_softmax(plain, -1))


def test_zero_probability_survives_in_linear_and_vetoes_in_log_linear():
    veto = torch.tensor([-torch.inf, 0.0, 0.0])
    plain = torch.zeros(3)
    assert interpolate([veto, plain], [0.5, 0.5], "linear", "logits")[0].exp() > 0.16
    assert interpolate([veto, plain], [0.5, 0.5], "log_linear", "logits")[0] == -torch.inf


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_everything_vetoed_is_probability_zero_not_nan(space):
    a, b = torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0])
    if space == "probabilities":
        a, b = a.exp(), b.exp()
    found = interpolate([a, b], [0.5, 0.5], "log_linear", space)
    expected = [-torch.inf] * 2 if space == "logits" else [0.0] * 2
    assert found.tolist() == expected


class Scale:
    """Multiplies its input; counts how often it is loaded."""

    def __init__(self, factor, name="x"):
        from toolkit.artifacts import TensorSpec

        self.factor, self.loaded = factor, 0
        self.inputs = (TensorSpec(name, "float64", ("batch", 2)),)
        self.name = f"scale {factor}"

    def __enter__(self):
        self.loaded += 1
        return self

    def __exit__(self, *error):
        self.loaded -= 1

    def __call__(self, feeds):
        assert self.loaded == 1
        return {"y": feeds[self.inputs[0].name] * self.factor}


def test_members_are_loaded_with_the_ensemble_and_freed_with_it():
    members = [Scale(1.0), Scale(3.0)]
    runner = EnsembleRunner([Weighted(m, 0.5) for m in members], "linear", "values", "y")
    with runner:
        found = runner({"x": np.ones((1, 2))})
    assert found["y"].tolist() == [[2.0, 2.0]]
    assert [m.loaded for m in members] == [0, 0]


def test_members_are_freed_when_a_later_one_does_not_load():
    class Broken(Scale):
        def __enter__(self):
            raise RuntimeError("no memory")

    first = Scale(1.0)
    runner = EnsembleRunner(
        [Weighted(first, 0.5), Weighted(Broken(1.0), 0.5)], "linear", "values", "y"
    )
    with pytest.raises(RuntimeError, match="no memory"):
        runner.__enter__()
    assert first.loaded == 0


def test_renamed_inputs_are_joined():
    members = [Weighted(Scale(1.0), 0.5), Weighted(Renamed(Scale(3.0, "z"), {"z": "x"}), 0.5)]
    runner = EnsembleRunner(members, "linear", "values", "y")
    assert [spec.name for spec in runner.inputs] == ["x"]
    with runner:
        assert runner({"x": np.ones((1, 2))})["y"].tolist() == [[2.0, 2.0]]


def test_an_ensemble_is_a_member_like_any_other():
    inner = EnsembleRunner(
        [Weighted(Scale(1.0), 0.5), Weighted(Scale(3.0), 0.5)], "linear", "values", "y"
    )
    outer = EnsembleRunner(
        [Weighted(inner, 0.5), Weighted(Scale(4.0), 0.5)], "linear", "values", "y"
    )
    with outer:
        assert outer({"x": np.ones((1, 2))})["y"].tolist() == [[3.0, 3.0]]
