"""The laws: each one is broken by the fault it is there for, and only held where PyTorch obeys."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.fakes import FakeRunner
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.feeds import cases
from toolkit.parity import OutputSpec, ParityOptions, ParityReport, prove

INPUTS = (
    TensorSpec("ids", "int64", ("batch", "sequence"), low=0, high=20),
    TensorSpec("mask", "int64", ("batch", "sequence"), low=0, high=2, role="mask"),
)
SHAPES = {"batch": DimRange(1, 3, 4), "sequence": DimRange(1, 5, 9)}
TABLE = np.random.default_rng(3).standard_normal((20, 6))
LAWS = {
    "repeat", "identical rows", "row order", "one row", "padding content", "padding length",
}  # fmt: skip


class Encoder(FakeRunner):
    """Mean of embeddings over the valid positions, and each position's difference from it."""

    def __init__(self, name, dtype="float32", change=lambda feeds, values: values):
        super().__init__(name, lambda x: {})
        self.inputs = INPUTS
        self._dtype, self._change = dtype, change

    def __call__(self, feeds):
        ids, mask = feeds["ids"], feeds["mask"]
        embedded = TABLE.astype(self._dtype)[ids]
        weight = mask[..., None].astype(self._dtype)
        mean = (embedded * weight).sum(1) / weight.sum(1)
        found = {"pooled": mean, "hidden": np.tanh(embedded - mean[:, None])}
        return self._change(feeds, found)


def proof(change, pytorch=lambda feeds, values: values) -> ParityReport:
    return prove(
        Encoder("64", "float64", pytorch),
        [Encoder("32", change=pytorch)],
        [Encoder("candidate", change=change)],
        cases(INPUTS, SHAPES, seed=0, count=1),
        [OutputSpec("pooled"), OutputSpec("hidden")],
        ParityOptions(inputs=INPUTS),
    )


def laws(report: ParityReport) -> dict:
    (verdict,) = (v for v in report.verdicts if not v.output)
    return {check.gate: check for check in verdict.checks}


def broken(report: ParityReport) -> set[str]:
    return {gate for gate, check in laws(report).items() if check.status == "fail"}


def test_a_healthy_model_obeys_every_law():
    found = laws(proof(lambda feeds, values: values))
    assert set(found) == LAWS
    assert {check.status for check in found.values()} == {"pass"}
    assert {check.level for check in found.values()} == {"G4"}


def test_noise_is_found_by_running_twice():
    rng = np.random.default_rng(0)

    def noisy(feeds, values):
        return {n: v + rng.uniform(0, 1e-7, v.shape).astype(v.dtype) for n, v in values.items()}

    check = laws(proof(noisy))["repeat"]
    assert check.status == "fail"
    assert "a second run gives" in check.detail
    assert check.limit == 0


def test_a_row_that_depends_on_its_place_is_found():
    def by_place(feeds, values):
        shift = 1 + 1e-3 * np.arange(len(values["pooled"]), dtype=np.float32)
        return values | {"pooled": values["pooled"] * shift[:, None]}

    assert broken(proof(by_place)) == {"identical rows", "row order", "one row"}


def test_a_row_that_depends_on_its_neighbours_is_found():
    def mixed(feeds, values):
        return values | {"pooled": values["pooled"] + values["pooled"].mean(0) * np.float32(0.01)}

    assert broken(proof(mixed)) == {"one row"}


def test_a_batch_size_that_the_export_fixed_is_found():
    def fixed(feeds, values):
        if len(feeds["ids"]) == 1:
            raise RuntimeError("Got: 1 Expected: 3")
        return values

    check = laws(proof(fixed))["one row"]
    assert check.status == "fail"
    assert check.detail == "it cannot be run: RuntimeError: Got: 1 Expected: 3"


def test_a_mask_that_is_ignored_is_found():
    def unmasked(feeds, values):
        mean = TABLE.astype(np.float32)[feeds["ids"]].mean(1)
        return values | {"pooled": mean}

    assert {"padding content", "padding length"} <= broken(proof(unmasked))


@pytest.mark.parametrize("law", ["padding content", "padding length"])
def test_a_law_that_pytorch_does_not_obey_is_not_held(law):
    def sums(feeds, values):
        return {
            n: v + feeds["ids"].sum(1).reshape(-1, *[1] * (v.ndim - 1)) for n, v in values.items()
        }

    report = proof(sums, sums)
    check = laws(report)[law]
    assert report.passed
    assert check.status == "not run"
    assert check.detail.startswith("PyTorch's own answer depends on")


def test_reasons_are_given_where_a_law_does_not_apply():
    bare = (INPUTS[0],)
    shapes = {"batch": DimRange(2, 3, 4), "sequence": DimRange(5, 5, 5)}

    class Bare(FakeRunner):
        inputs = bare

        def __call__(self, feeds):
            return {"pooled": TABLE.astype(self.name)[feeds["ids"]].mean(1)}

    runners = []
    for name in ("float64", "float32", "float32"):
        runners.append(Bare(name, lambda x: {}))
        runners[-1].inputs = bare
    report = prove(
        runners[0], runners[1:2], runners[2:], cases(bare, shapes, seed=0, count=0),
        [OutputSpec("pooled")],
    )  # fmt: skip
    found = laws(report)
    assert found["one row"].detail == "the shapes allow no single row"
    assert found["padding content"].detail == "there is no attention mask"
    assert report.passed
