"""prove: what passes, what fails, and how the failure is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.fakes import (
    WEIGHT,
    FakeRunner,
    altered,
    baseline,
    candidate,
    reference,
    some_cases,
)
from toolkit.errors import ParityError
from toolkit.parity import OutputSpec, ParityOptions, ParityReport, Tolerance, prove

LOGITS = (OutputSpec("logits", "logits"),)


def run(*candidates, outputs=LOGITS, cases=None, options=None) -> ParityReport:
    return prove(reference(), [baseline()], candidates, cases or some_cases(), outputs, options)


def failed_gates(report: ParityReport) -> set[str]:
    return {c.gate for v in report.verdicts for c in v.checks if c.status == "fail"}


def test_a_healthy_candidate_passes():
    report = run(candidate())
    report.raise_if_failed()
    assert report.passed
    assert {c.status for c in report.verdicts[0].checks} == {"pass"}
    assert [c.gate for c in report.verdicts[0].checks] == [
        "ran", "finite", "rms", "max", "budget rms", "budget p99", "budget max", "choice",
        "divergence",
    ]  # fmt: skip
    for row in report.classes:
        assert 0 <= row.p50 <= row.p95 <= row.p99 <= row.max < 1e-5
        assert row.agreed == row.rows > 0
        assert row.kl_max is not None
        assert row.kl_max < 1e-10
        assert row.ratio == row.rms / max(row.baseline_rms, 2.0**-23)
        assert row.rms <= row.max <= row.max_limit == 1e-4
    assert [row.candidate for row in report.healthy] == ["numpy float32"] * len(report.classes)
    assert [row.rms for row in report.healthy] != [row.rms for row in report.classes]


@given(st.integers(0, 4), st.sampled_from([1.001, 0.999]))
@settings(max_examples=10, deadline=None)
def test_a_weight_column_scaled_by_a_thousandth_fails(column, factor):
    weight = WEIGHT.copy()
    weight[:, column] *= np.float32(factor)
    report = run(candidate(weight))
    assert not report.passed
    assert "rms" in failed_gates(report)


def test_a_tiny_defect_within_the_fixed_tolerance_fails_by_its_ratio():
    report = run(altered(lambda x, y: y * np.float32(1 + 2e-5)))
    assert failed_gates(report) == {"rms", "budget rms", "budget p99", "budget max"}
    verdict, _ = report.verdicts
    (rms,) = (check for check in verdict.checks if check.gate == "rms")
    assert rms.measured == pytest.approx(2e-5, rel=0.02)
    assert rms.limit < 2e-6
    assert "PyTorch's own error is" in rms.detail


def test_a_wrong_class_order_fails_and_says_that_a_decision_changed():
    report = run(altered(lambda x, y: y[:, ::-1]))
    assert {"rms", "max", "choice"} <= failed_gates(report)
    (choice,) = (c for c in report.verdicts[0].checks if c.gate == "choice")
    assert "a margin of" in choice.detail
    assert choice.measured > choice.limit


def test_a_nan_is_named_before_larger_errors():
    def broken(x, y):
        y[:, 0] += 1000
        y[-1, 2] = np.nan
        return y

    report = run(altered(broken))
    with pytest.raises(ParityError) as error:
        report.raise_if_failed()
    assert str(error.value).startswith(
        "output 'logits' of altered, case 'corner: batch=4': 13 values are not comparable,"
        " the first nan at [3, 2] where the reference is "
    )
    assert error.value.exit_code == 3
    assert "overflow" in error.value.hint


def test_a_defect_at_one_batch_size_only_is_found_and_its_case_named():
    report = run(altered(lambda x, y: y + np.float32(1e-3) if len(x) == 9 else y))
    with pytest.raises(ParityError, match="case 'corner: batch=9'"):
        report.raise_if_failed()


def test_a_veto_in_both_is_equal():
    def veto(dtype):
        def run(x):
            y = logits_of(x, dtype)
            y[:, 1] = -np.inf
            return {"logits": y}

        return run

    def logits_of(x, dtype):
        return x.astype(dtype) @ WEIGHT.astype(dtype)

    report = prove(
        FakeRunner("64", veto("float64")),
        [FakeRunner("32", veto("float32"))],
        [FakeRunner("c", veto("float32"))],
        some_cases(),
        LOGITS,
    )
    report.raise_if_failed()


def test_a_veto_that_the_candidate_lost_fails():
    runner = FakeRunner("64", lambda x: {"logits": np.full((len(x), 2), -np.inf)})
    same = FakeRunner("32", lambda x: {"logits": np.full((len(x), 2), -np.inf, np.float32)})
    lost = FakeRunner("c", lambda x: {"logits": np.full((len(x), 2), -80, np.float32)})
    report = prove(runner, [same], [lost], some_cases(), LOGITS)
    assert failed_gates(report) == {"finite"}


def test_a_candidate_that_fails_while_another_passes_is_told_apart():
    report = run(candidate(), altered(lambda x, y: y + 1, name="other"))
    with pytest.raises(ParityError) as error:
        report.raise_if_failed()
    assert "output 'logits' of other" in str(error.value)
    assert error.value.hint.startswith("'candidate' passes with the same file")


def test_a_candidate_that_cannot_run_a_shape_fails_and_the_rest_is_still_measured():
    def at_batch_four_only(x, y):
        if len(x) != 4:
            raise RuntimeError("Got invalid dimensions\nmore text")
        return y

    report = run(altered(at_batch_four_only))
    assert failed_gates(report) == {"ran", "one row"}
    with pytest.raises(ParityError) as error:
        report.raise_if_failed()
    assert "gave no comparable output: RuntimeError: Got invalid dimensions" in str(error.value)
    assert "case 'corner: batch=1'" in str(error.value)
    assert report.classes


def test_a_wrong_output_shape_fails():
    report = run(altered(lambda x, y: y[:, :4]))
    with pytest.raises(ParityError, match=r"the shape is \[4, 4\], the reference's is \[4, 8\]"):
        report.raise_if_failed()


def test_an_output_the_candidate_lacks_fails():
    report = run(FakeRunner("c", lambda x: {"scores": x}))
    with pytest.raises(ParityError, match="there is no output 'logits', only scores"):
        report.raise_if_failed()


def test_several_failed_outputs_are_counted():
    two = (OutputSpec("logits", "logits"), OutputSpec("hidden"))
    runner = FakeRunner("r", lambda x: {"logits": x @ WEIGHT, "hidden": x})
    wrong = FakeRunner("c", lambda x: {"logits": x @ WEIGHT + 1, "hidden": x + 1})
    report = prove(runner, [runner], [wrong], some_cases(), two)
    with pytest.raises(ParityError, match=r"\(and 1 more output\)$"):
        report.raise_if_failed()


def test_integer_outputs_may_differ_only_where_pytorch_does():
    def classes(off):
        return lambda x: {"y": np.arange(len(x)) + off * (np.arange(len(x)) == 0)}

    exact, wrong = FakeRunner("a", classes(0)), FakeRunner("b", classes(1))
    outputs = (OutputSpec("y"),)
    assert prove(exact, [exact], [exact], some_cases(), outputs).passed
    assert not prove(exact, [exact], [wrong], some_cases(), outputs).passed
    assert prove(exact, [wrong], [wrong], some_cases(), outputs).passed


def test_without_a_baseline_the_ratio_is_not_run_and_not_passed():
    report = prove(reference(), [], [candidate()], some_cases(), LOGITS)
    status = {check.gate: check.status for check in report.verdicts[0].checks}
    assert status["rms"] == "not run"
    assert status["max"] == "pass"
    assert report.passed
    assert all(row.ratio is None for row in report.classes)


def test_what_was_not_run_never_passes():
    verdict, _ = run(candidate()).verdicts
    assert verdict.passed
    for gate in ("ran", "finite", "max"):
        checks = tuple(c for c in verdict.checks if c.gate != gate)
        assert not replace(verdict, checks=checks).passed
        (missing,) = (replace(c, status="not run") for c in verdict.checks if c.gate == gate)
        assert not replace(verdict, checks=(*checks, missing)).passed


def test_only_one_model_is_loaded_at_a_time():
    FakeRunner.most_entered = 0
    prove(reference(), [baseline()], [candidate(), candidate(name="b")], some_cases(), LOGITS)
    assert FakeRunner.most_entered == 1


def test_outputs_over_the_memory_limit_wait_on_disk_and_change_nothing():
    assert run(candidate()) == run(candidate(), options=ParityOptions(memory_bytes=100))


def test_a_tighter_bound_can_fail_what_passes_by_default():
    tight = Tolerance().tightened(rms_ratio=0, floor_ulps=0)
    assert not run(candidate(), options=ParityOptions(tolerance=tight)).passed


@given(st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None)
def test_the_order_of_cases_does_not_change_the_verdict(random):
    shuffled = list(some_cases())
    random.shuffle(shuffled)
    for runner in (candidate(), altered(lambda x, y: y * np.float32(1.001))):
        one, other = run(runner), run(runner, cases=shuffled)
        assert one.verdict == other.verdict
        by_kind = {row.kind: row for row in other.classes}
        for row in one.classes:
            same = by_kind[row.kind]
            assert (row.n, row.max, row.p99) == (same.n, same.max, same.p99)
            assert row.rms == pytest.approx(same.rms, rel=1e-12)


def test_progress_names_the_runner_and_counts():
    calls = []
    cases = some_cases(0)
    prove(
        reference(), [baseline()], [candidate()], cases, LOGITS, progress=lambda *a: calls.append(a)
    )
    assert calls[0] == ("numpy float64", 1, len(cases))
    assert calls[-1] == ("candidate", len(cases), len(cases))
    assert len(calls) == 3 * len(cases)


@pytest.mark.parametrize(
    ("candidates", "cases", "outputs", "text"),
    [
        ([], 1, LOGITS, "there is no candidate to compare, so nothing would be proven"),
        ([candidate()], 0, LOGITS, "there is no case to compare, so nothing would be proven"),
        ([candidate()], 1, (), "there is no output to compare, so nothing would be proven"),
        ([candidate(), candidate()], 1, LOGITS, "two candidates are named 'candidate'"),
        ([candidate()], 1, LOGITS * 2, "two outputs are named 'logits'"),
    ],
)
def test_nothing_to_compare_is_refused(candidates, cases, outputs, text):
    with pytest.raises(ParityError) as error:
        prove(reference(), [], candidates, some_cases()[:cases], outputs)
    assert str(error.value) == text


def test_a_reference_without_the_output_is_refused():
    with pytest.raises(ParityError) as error:
        run(candidate(), outputs=[OutputSpec("scores")])
    assert str(error.value) == "the reference has no output 'scores'"
    assert error.value.hint == "it has logits"


def test_a_baseline_that_cannot_run_is_refused():
    broken = FakeRunner("b", lambda x: {"logits": x})
    with pytest.raises(ParityError, match="the baseline gives no output 'logits' to compare in"):
        prove(
            FakeRunner("r", lambda x: {"logits": x[:, :2]}),
            [broken],
            [broken],
            some_cases(),
            LOGITS,
        )
