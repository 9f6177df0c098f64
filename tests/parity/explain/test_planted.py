"""The planted node or its direct consumer is named, whatever the fault."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphs
from tests.parity.explain.faults import KINDS, faults
from toolkit.parity.explain.budget import measure
from toolkit.pipeline.explain import explain_graph
from toolkit.runtime import OrtRunner


def outputs(path, lab):
    """Every sample's outputs, or None where the graph does not run."""
    try:
        with OrtRunner(path, optimise=False) as run:
            return [run(sample.feeds()) for sample in lab.samples]
    except Exception:  # noqa: BLE001
        return None


def detected(path, lab):
    """Whether some output is further off than ten times what is healthy."""
    found = outputs(path, lab)
    if found is None:
        return True
    healthy = outputs(lab.twin.finished, lab)
    for sample, have, usual in zip(lab.samples, found, healthy, strict=True):
        truth = lab.twin.truth(sample.feeds(), list(have))
        for name, value in truth.items():
            error, normal = measure(value, have[name]), measure(value, usual[name])
            if not error.comparable or error.rms > 10 * max(normal.rms, 2**-23 * error.scale):
                return True
    return False


def named(explanation, path, nodes):
    """Whether the first suspect is one of ``nodes``, inside its function, or reads it."""
    if not explanation.suspects:
        return False
    first = explanation.suspects[0]
    if {first.node, first.call, *first.through} & nodes:
        return True
    outline = graphs.outline(path)
    made = {value for node in outline.nodes if node.name in nodes for value in node.outputs}
    return any(node.name == first.node and made & set(node.inputs) for node in outline.nodes)


@pytest.mark.parametrize(("family", "places", "most"), [("ensemble", 2, 9), ("bert", 1, 12)])
def test_the_planted_node_or_its_consumer_is_named(family, places, most, request, tmp_path):
    """In 95 % of the cases that change an output, over at least ``most`` kinds of fault."""
    lab = request.getfixturevalue(family)
    path = tmp_path / "planted.onnx"
    kinds, found, missed = set(), 0, []
    for fault in faults(lab.healthy, places):
        onnx.save(fault.model, path)
        if detected(path, lab):
            kinds.add(fault.kind)
            explanation = explain_graph(path, lab.twin, lab.samples)
            assert len(explanation.samples) == 8
            if named(explanation, path, fault.nodes):
                found += 1
            else:
                missed.append((fault.kind, fault.nodes, explanation.suspects[:1]))
    assert len(kinds) >= most, sorted(set(KINDS) - kinds)
    assert found >= 0.95 * (found + len(missed)), missed


@pytest.mark.parametrize("family", ["ensemble", "bert"])
def test_a_healthy_graph_has_no_suspects(family, request):
    lab = request.getfixturevalue(family)
    explanation = explain_graph(lab.twin.finished, lab.twin, lab.samples)
    assert explanation.suspects == ()
    assert explanation.findings == ()
    assert explanation.unmatched == ()
    assert explanation.notes == ()
    assert explanation.values >= explanation.nodes > 0


def plant(lab, kind, path, place=0):
    fault = [one for one in faults(lab.healthy) if one.kind == kind][place]
    onnx.save(fault.model, path)
    return explain_graph(path, lab.twin, lab.samples)


def test_a_suspect_tells_module_member_source_and_what_differs(ensemble, tmp_path):
    explanation = plant(ensemble, "weight row scaled by 0.03 %", tmp_path / "m.onnx", place=1)
    first = explanation.suspects[0]
    assert first.node == "first/module.module.inner.0/Gemm"
    assert (first.op, first.member, first.module) == ("Gemm", "first", "inner.0")
    assert first.source == "aten.linear.default: return self.inner(x)"
    assert first.samples == 8
    assert first.ratio > 100
    assert first.error == pytest.approx(first.healthy * first.ratio, rel=10)
    assert "(all with index 2 along axis 0)" in first.findings[0]
    assert len(explanation.suspects) == 1, "what follows it computes rightly from wrong inputs"


def test_a_new_node_is_named_and_so_is_what_stands_behind_it(bert, tmp_path):
    explanation = plant(bert, "node inserted", tmp_path / "m.onnx")
    assert explanation.suspects[0].node == "planted"
    assert {finding.subject for finding in explanation.findings} >= {"planted", "planted constant"}
    assert explanation.unmatched == ("hidden by a fault",)


def test_a_missing_node_is_named(bert, tmp_path):
    explanation = plant(bert, "node removed", tmp_path / "m.onnx")
    assert any(finding.detail.endswith("is missing") for finding in explanation.findings)
    assert explanation.suspects[0].findings


def test_a_graph_that_does_not_run_is_localised_too(bert, tmp_path):
    explanation = plant(bert, "float16 in between", tmp_path / "m.onnx")
    assert explanation.notes[0].startswith("the graph does not run to its end: ONNX Runtime")
    assert explanation.suspects[0].ratio == np.inf


def test_the_combination_is_held_against_its_definition(ensemble, tmp_path):
    explanation = plant(ensemble, "members swapped", tmp_path / "m.onnx")
    first = explanation.suspects[0]
    assert first.node == "interpolation/stack"
    assert "input 0 is interpolation/unsqueeze_first" in first.findings[0]
