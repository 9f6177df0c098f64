"""The static checker finds what is planted, by rule and node, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphs import GraphError, check_tensorrt
from graphs.tensorrt.control_checks import CONTROL_CHECKS
from graphs.tensorrt.node_checks import NODE_CHECKS
from graphs.tensorrt.operators import OPERATORS, TYPES
from graphs.tensorrt.rules import RULES
from graphs.tensorrt.spans import SUPPORTED, Span
from tests.graphs.models import net
from tests.graphs.tensorrt.planted import KEPT, PLANTED, Planted, write_planted

# What a graph breaks besides the rule it is about, because the one brings the other with it.
COMPANY = {"if-attention": {"operator-unsupported"}}


def found(planted: Planted, folder, target: str, version: str = ""):
    path = write_planted(planted, folder / "model.onnx")
    return check_tensorrt(path, target, version, ranges=["batch", "seq", "k", "m", "a", "b"])


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_violation_is_found_by_rule_and_node(planted, tmp_path):
    limits = RULES[planted.rule].limits
    target = "tensorrt" if limits is None or limits.tensorrt else "tensorrt-rtx"
    places = {(each.rule, each.node) for each in found(planted, tmp_path, target)}
    assert (planted.rule, planted.node) in places
    assert {rule for rule, _ in places} - {planted.rule} == COMPANY.get(planted.rule, set())


def test_every_rule_has_a_planted_graph_and_a_source():
    assert {planted.rule for planted in PLANTED} == set(RULES)
    assert len(RULES) >= 25
    assert all(rule.limits is None or rule.limits.source for rule in RULES.values())
    assert set(NODE_CHECKS) | set(CONTROL_CHECKS) <= set(RULES)


@pytest.mark.parametrize("target", SUPPORTED)
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_what_only_looks_like_a_violation_is_none(kept, target, tmp_path):
    assert [str(each) for each in found(kept, tmp_path, target)] == []


def test_rows_about_types_are_about_operators_there_are():
    assert set(TYPES) <= set(OPERATORS)


def test_versions_are_told_apart(tmp_path):
    planted = next(each for each in PLANTED if each.rule == "if-shape")
    (asked,) = found(planted, tmp_path, "tensorrt")
    assert (asked.always, asked.versions) == (False, "TensorRT 10 to before 10.11")
    (old,) = found(planted, tmp_path, "tensorrt", "10.8.0.43")
    assert old.always
    assert found(planted, tmp_path, "tensorrt", "10.11") == ()
    (rtx,) = found(planted, tmp_path, "tensorrt-rtx")
    assert rtx.always


def test_a_violation_reads_as_one_line(tmp_path):
    planted = next(each for each in PLANTED if each.rule == "scatternd-reduction")
    (violation,) = found(planted, tmp_path, "tensorrt")
    assert str(violation) == (
        "node 'add' (ScatterND): found reduction 'add', wanted ScatterND without a reduction "
        "[scatternd-reduction]"
    )
    assert "gather the old values" in violation.hint
    assert violation.source == "importer, ScatterND; RTX 1.7.1"


def test_an_operator_that_a_plugin_gives_is_known(tmp_path):
    planted = next(each for each in PLANTED if each.rule == "operator-unknown")
    path = write_planted(planted, tmp_path / "model.onnx")
    assert check_tensorrt(path, plugins=["FastGelu"]) == ()


def test_inside_a_function_the_call_is_named(tmp_path):
    body = '\n<domain: "our", opset_import: ["" : 20]>\nFoo (a) => (b) { b = Bernoulli (a) }'
    text = "g (float[batch,4] x) => (float[batch,4] y) { [call] y = our.Foo (x) }" + body
    (violation,) = found(Planted(text, domains=("our",)), tmp_path, "tensorrt")
    assert violation.rule == "operator-unsupported"
    assert violation.node == "y"


def test_ranges_are_asked_for_only_where_there_are_some(tmp_path):
    path = net(tmp_path / "net.onnx", 0)
    assert check_tensorrt(path) == ()
    assert check_tensorrt(path, ranges=["batch"]) == ()
    (violation,) = check_tensorrt(path, ranges=["sequence"])
    assert violation.found == "dimension 'batch' has no range"


@pytest.mark.parametrize(
    ("target", "version", "text"),
    [
        ("openvino", "", "'openvino' is no builder of engines"),
        ("tensorrt", "8.6", "nothing is known about TensorRT 8.6, wanted 10.8 to before 12"),
    ],
)
def test_an_unknown_builder_is_refused(target, version, text, tmp_path):
    with pytest.raises(GraphError, match=text):
        check_tensorrt(net(tmp_path / "net.onnx", 0), target, version)


def test_a_span_knows_its_ends():
    span = Span("10.8", "12")
    inside = ["10.8", "10.8.0", "10.10", "11.4.0.106"]
    assert all(version in span for version in inside)
    assert not any(version in span for version in ["10.7.9", "12", "12.0.0", "9"])
    assert span.covers(Span("10.9", "11"))
    assert not Span("10.9", "11").covers(span)
    assert span.meets(Span("11", "13"))
    assert not span.meets(Span("12", "13"))


def test_the_documentation_lists_every_rule_as_the_table_has_it():
    page = (Path(__file__).parents[3] / "docs" / "engines.md").read_text()
    shown = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*?) \|", page, re.MULTILINE))
    assert shown == {rule.name: rule.wanted for rule in RULES.values()}
