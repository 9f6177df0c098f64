"""Decoding with its own cache, and a prompt in two parts: healthy ones pass, broken caches fail."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.fakes import FakeRunner
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.feeds import cases
from toolkit.parity import OutputSpec, ParityOptions, decode_cases, prove

INPUTS = (
    TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=11),
    TensorSpec("attention_mask", "int64", ("batch", "past + sequence"), low=0, high=2, role="mask"),
    TensorSpec("position_ids", "int64", ("batch", "sequence"), low=0, high=64),
    TensorSpec("past_key_values.0.key", "float32", ("batch", 1, "past", 4)),
    TensorSpec("past_key_values.0.value", "float32", ("batch", 1, "past", 4)),
)
SHAPES = {"batch": DimRange(1, 2, 3), "sequence": DimRange(1, 4, 7), "past": DimRange(0, 5, 40)}
OUTPUTS = ("logits", "present.0.key", "present.0.value")
RNG = np.random.default_rng(5)
EMBED, PLACE, OUT = RNG.standard_normal((11, 4)), RNG.standard_normal((64, 4)), np.eye(4, 11)


class Decoder(FakeRunner):
    """One causal attention layer; ``change`` is what goes wrong with the cache it gives."""

    def __init__(self, name, dtype="float32", change=lambda past, key: key, masked=True):
        super().__init__(name, lambda x: {})
        self.inputs = INPUTS
        self._dtype, self._change, self._masked = dtype, change, masked

    def __call__(self, feeds):
        cast = self._dtype
        ids, places = feeds["input_ids"], feeds["position_ids"]
        hidden = (EMBED[ids] + PLACE[places]).astype(cast)
        caches = ("past_key_values.0.key", "past_key_values.0.value")
        past_key, past_value = (feeds[name][:, 0].astype(cast) for name in caches)
        key = np.concatenate([past_key, np.tanh(hidden)], 1)
        value = np.concatenate([past_value, hidden], 1)
        scores = hidden @ key.transpose(0, 2, 1)
        seen = np.arange(key.shape[1]) <= past_key.shape[1] + np.arange(ids.shape[1])[:, None]
        if self._masked:
            seen = seen & (feeds["attention_mask"][:, None] != 0)
        scores = np.where(seen, scores, -1e9)  # finite, so one that sees nothing sees all alike
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weight / weight.sum(-1, keepdims=True) @ value
        key = self._change(past_key.shape[1], key)
        return {
            "logits": mixed @ OUT.astype(cast),
            "present.0.key": key[:, None],
            "present.0.value": value[:, None],
        }


def proof(change):
    found = decode_cases(INPUTS, OUTPUTS, SHAPES, seed=0)
    return prove(
        Decoder("64", "float64"),
        [Decoder("32")],
        [Decoder("candidate", change=change)],
        found,
        [OutputSpec(n, "logits" if n == "logits" else "values") for n in OUTPUTS],
        ParityOptions(inputs=INPUTS),
    )


def test_cases_are_thirty_two_steps_and_a_prompt_in_two_parts():
    decode, split = decode_cases(INPUTS, OUTPUTS, SHAPES, seed=0)
    assert decode.name == "decode 32 steps: batch=2 sequence=4"
    assert split.name == "prefill 3 + 4: batch=2"
    assert (decode.kind, split.kind) == ("decode", "split prefill")


def test_a_healthy_decoder_passes_and_every_step_is_compared():
    report = proof(lambda past, key: key)
    report.raise_if_failed()
    (row,) = (r for r in report.classes if (r.output, r.kind) == ("logits", "decode"))
    assert row.rows == 2 * 32
    assert row.agreed == row.rows


def test_errors_are_kept_step_by_step_beside_pytorchs_own():
    """A cache that loses a little in every step shows errors that grow; PyTorch's do not."""
    report = proof(lambda past, key: key * np.float32(1 + 1e-4))
    (decode,) = (s for s in report.steps if s.case.startswith("decode 32 steps"))
    assert (decode.candidate, decode.output) == ("candidate", "logits")
    assert len(decode.errors) == len(decode.baseline) == 32
    first, last = np.mean(decode.errors[:4]), np.mean(decode.errors[-4:])
    assert last > 4 * first > 0
    assert max(decode.baseline) < 1e-6
    healthy = proof(lambda past, key: key)
    assert {s.case for s in healthy.steps} == {case.name for case in healthy.cases}


@pytest.mark.parametrize(("masked", "status"), [(True, "pass"), (False, "fail")])
def test_padding_in_the_cache_and_after_it_is_not_read(masked, status):
    report = prove(
        Decoder("64", "float64"),
        [Decoder("32")],
        [Decoder("candidate", masked=masked)],
        cases(INPUTS, SHAPES, seed=0, count=4),
        [OutputSpec(n, "logits" if n == "logits" else "values") for n in OUTPUTS],
        ParityOptions(inputs=INPUTS),
    )
    laws = next(v for v in report.verdicts if not v.output)
    found = {check.gate: check for check in laws.checks}
    assert found["padding content"].status == status
    assert found["padding length"].detail == "the mask covers a cache too"


@pytest.mark.parametrize("place", [-1, 3])
def test_a_stale_slot_of_the_cache_fails(place):
    def stale(past, key):
        if past < 4:
            return key
        wrong = key.copy()
        wrong[:, place] = key[:, place - 1]
        return wrong

    report = proof(stale)
    assert not report.passed
    failed = {(v.output, c.case) for v in report.verdicts for c in v.failures}
    assert any("decode" in case for output, case in failed if output == "logits")


def test_a_cache_that_starts_anew_fails_in_the_second_part_of_a_prompt():
    report = proof(lambda past, key: key if past == 0 else key * np.float32(1.001))
    kinds = {r.kind for r in report.classes if r.output == "present.0.key" and r.rms > r.rms_limit}
    assert kinds == {"decode", "split prefill"}


def test_a_model_without_caches_has_no_such_cases():
    assert decode_cases(INPUTS[:3], ("logits",), SHAPES, seed=0) == ()


def test_fewer_steps_where_the_cache_is_short():
    short = SHAPES | {"past": DimRange(0, 2, 6)}
    decode, _ = decode_cases(INPUTS, OUTPUTS, short, seed=0)
    assert decode.name.startswith("decode 4 steps")
