"""parity.json: schema, round trip, and reports that were edited or are something else."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from tests.parity.fakes import altered, baseline, candidate, reference, some_cases
from toolkit.errors import ParityError
from toolkit.parity import OutputSpec, ParityReport, prove, schema

OUTPUTS = (OutputSpec("logits", "logits"),)


def proof(runner, base=True) -> ParityReport:
    return prove(reference(), [baseline()] if base else [], [runner], some_cases(1), OUTPUTS)


def nan(x, y):
    return np.where(x[:, :1] > 0, np.nan, y)


@pytest.mark.parametrize(
    "report",
    [proof(candidate()), proof(candidate(), base=False), proof(altered(nan))],
    ids=["pass", "no baseline", "fail"],
)
def test_a_report_survives_json_and_obeys_the_schema(report):
    text = report.to_json()
    assert ParityReport.from_json(text) == report
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(text), schema())


def test_the_schema_refuses_what_is_no_report():
    content = json.loads(proof(candidate()).to_json())
    content["verdict"] = "maybe"
    with pytest.raises(jsonschema.ValidationError, match="'maybe' is not one of"):
        jsonschema.validate(content, schema())


def test_the_same_proof_gives_the_same_text():
    assert proof(candidate()).to_json() == proof(candidate()).to_json()


@pytest.mark.parametrize("verdict", ["passed", "failed"])
def test_an_edited_verdict_is_found(verdict):
    report = proof(candidate() if verdict == "failed" else altered(nan))
    content = json.loads(report.to_json())
    content["verdict"] = verdict
    with pytest.raises(ParityError) as error:
        ParityReport.from_json(json.dumps(content))
    actual = "passed" if verdict == "failed" else "failed"
    assert f"the parity report says {verdict!r}, but its checks say {actual!r}" in str(error.value)


def test_a_report_without_cases_never_passes():
    content = json.loads(proof(candidate()).to_json())
    content["cases"] = []
    with pytest.raises(ParityError, match="its checks say 'failed'"):
        ParityReport.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a parity report: the text: Invalid JSON"),
        ("{}", "not a parity report: verdict: Field required"),
        ('{"verdict": 3}', "not a parity report: verdict: Input should be 'passed' or 'failed'"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ParityError) as error:
        ParityReport.from_json(text)
    assert str(error.value).startswith(message)
    assert error.value.hint == "run the proof again to write a new one"
