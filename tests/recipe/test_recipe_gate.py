"""Gates in a recipe: where they stand, what they are called, what is refused."""

from __future__ import annotations

import pytest

from tests.recipe.text import read, refused
from toolkit.recipe import resolved_yaml

RECIPE = """
model:
  ensemble:
    combine: {combine}
    {more}
    gate: {gate}
    members: [{{onnx: a.onnx}}, {{onnx: b.onnx}}]
passes: [{passes}]
"""


def text(gate="{model: {onnx: g.onnx}}", combine="linear", more="", passes=""):
    return RECIPE.format(gate=gate, combine=combine, more=more, passes=passes)


def test_a_gate_is_called_gate_and_there_are_no_constant_weights():
    found = read(text())
    assert [(place, model.name) for place, model in found.models()] == [
        ("model", "ensemble"),
        ("model.ensemble.members[0]", "a"),
        ("model.ensemble.members[1]", "b"),
        ("model.ensemble.gate.model", "gate"),
    ]
    assert found.model.ensemble.weights == ()
    assert read(resolved_yaml(found)) == found


def test_a_member_called_gate_keeps_its_name():
    members = text().replace("{onnx: a.onnx}", "{onnx: a.onnx, name: gate}")
    assert [model.name for _, model in read(members).models()] == [
        "ensemble",
        "gate",
        "b",
        "gate_2",
    ]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"more": "weights: [0.5, 0.5]"}, "weights: found weights beside a gate, wanted one", ""),
        ({"gate": "{model: {onnx: g}, top_k: 3}"}, "gate.top_k: found 3 for 2 members", ""),
        ({"gate": "{model: {onnx: g}, top_k: 0}"}, "gate.top_k: found 0, wanted at least 1", ""),
        ({"gate": "{model: {onnx: g}, top_k: true}"}, "gate.top_k: found true, wanted a whole", ""),
        (
            {"gate": "{model: {onnx: g}, activation: softplus}"},
            "gate.activation: softplus weights need not sum to 1, which linear needs",
            "use softmax, or combine: log_linear",
        ),
        ({"gate": "{onnx: g.onnx}"}, "gate.model: required key is missing", ""),
        ({"gate": "{model: {}}"}, "gate.model: found {}, wanted exactly one of", ""),
        (
            {"passes": "{name: skip_gated_members, threshold: 1.5}"},
            "found 1.5, wanted less than",
            "",
        ),
        (
            {"passes": "{name: remove_unused_nodes, threshold: 0.5}"},
            "passes[0].threshold: the pass remove_unused_nodes has no such option",
            "",
        ),
    ],
)
def test_what_a_gate_cannot_be_is_refused(options, message, hint):
    error = refused(text(**options))
    assert message in error.message
    assert hint in error.hint


def test_the_threshold_is_an_option_of_its_pass():
    found = read(
        text(passes="{name: skip_gated_members, threshold: 0.001}, {name: remove_unused_nodes}")
    )
    assert [step.options() for step in found.passes] == [{"threshold": 0.001}, {}]


GATES = "{model: {factory: '%s', weights: g.safetensors}}"


def test_gates_of_this_package_need_no_permission_and_no_inputs():
    read(text(GATES % "toolkit.gates:features"), allow_code=False)
    for other in ("toolkit.gates:Features", "toolkit.gates.x:features", "gates:features"):
        assert "which was not allowed" in refused(text(GATES % other), allow_code=False).message


def test_gates_count_as_levels():
    inner = "{onnx: g.onnx}"
    for _ in range(17):
        inner = (
            f"{{ensemble: {{combine: linear, gate: {{model: {inner}}}, members: [{{onnx: a}}]}}}}"
        )
    assert "nested deeper than 16 levels" in refused(f"model: {inner}").message
