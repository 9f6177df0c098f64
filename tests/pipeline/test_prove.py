"""A bundle can be proven again, wherever it and its models were moved together."""

from __future__ import annotations

import shutil

import onnx
import pytest
from onnx import numpy_helper

from toolkit.bundle import EngineRecord, Manifest
from toolkit.errors import BundleError, CapabilityError, EngineError, IntegrityError
from toolkit.pipeline import prove_bundle
from toolkit.runtime import OrtRunner


@pytest.fixture
def moved(exported, tmp_path):
    """The workshop and the bundle, both moved; (shop, bundle)."""
    folder, out, _ = exported
    shutil.copytree(folder, tmp_path / "shop")
    shutil.copytree(out, tmp_path / "bundle")
    return tmp_path / "shop", tmp_path / "bundle"


def test_same_proof_again(exported, moved):
    report = prove_bundle(moved[1], allow_code=True)
    assert report == exported[2].report


def test_models_elsewhere_are_found_through_root(moved, tmp_path):
    shop, bundle = moved
    shop.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"lay in \.\./shop beside it, which is") as found:
        prove_bundle(bundle, allow_code=True)
    assert "--root" in found.value.hint
    assert prove_bundle(bundle, allow_code=True, root=tmp_path / "elsewhere").passed


def test_changed_graph_is_refused_and_judged_only_as_is(moved):
    path = moved[1] / "model.onnx"
    graph = onnx.load(path)
    (weight,) = [t for t in graph.graph.initializer if t.name.endswith("inner.0.weight")]
    scaled = numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    onnx.save(graph, path)
    with pytest.raises(IntegrityError, match=r"model\.onnx has changed"):
        prove_bundle(moved[1], allow_code=True)
    report = prove_bundle(moved[1], allow_code=True, as_is=True)
    assert not report.passed


def test_the_report_names_the_files_it_judged(exported):
    outcome = exported[2]
    recorded = outcome.manifest.files
    assert dict(outcome.report.files) == {"model.onnx": recorded["model.onnx"].sha256}
    static = outcome.report.verdicts[0]
    assert static.candidate == "model.onnx"
    assert {check.level for check in static.checks} == {"G0"}


def test_what_time_does_not_suffice_for_is_not_run_and_not_passed(moved):
    report = prove_bundle(moved[1], allow_code=True, seconds=1e-9)
    assert len(report.cases) == 1
    assert len(report.not_run) > 5
    assert report.cases[0].kind == "corner"


@pytest.mark.parametrize("runtime", ["cuda", "ort-tensorrt"])
def test_a_runtime_that_is_not_here_is_refused_at_once(moved, runtime, monkeypatch):
    monkeypatch.setattr("toolkit.runtime.opening.providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(CapabilityError, match=r"ONNX Runtime has no \w+ExecutionProvider here"):
        prove_bundle(moved[1], allow_code=True, runtime=runtime)


def test_an_engine_is_proven_as_a_graph_is(moved, monkeypatch):
    """Where the engine is, ONNX Runtime stands in for it."""
    asked = []

    def stand_in(name, path, *, label=""):
        asked.append((name, path.name))
        return OrtRunner(path.with_name("model.onnx"), label=label)

    monkeypatch.setattr("toolkit.pipeline.runtimes.open_runtime", stand_in)
    monkeypatch.setattr("toolkit.pipeline.prove.require_runtime", lambda name: None)
    with pytest.raises(EngineError, match="holds no engine, wanted one of tensorrt-rtx") as found:
        prove_bundle(moved[1], allow_code=True, runtime="tensorrt-rtx")
    assert found.value.hint == f"toolkit build {moved[1]} --target tensorrt-rtx"
    path = moved[1] / "manifest.json"
    engine = EngineRecord(flavour="tensorrt-rtx", version="1", compute_capabilities=(), layers=1)
    Manifest.read(path).model_copy(update={"engine": engine}).write(path)
    monkeypatch.setattr("toolkit.engine.fit.missing", lambda flavour: ())
    monkeypatch.setattr("toolkit.engine.fit.device_capability", lambda: "8.9")
    monkeypatch.setattr("toolkit.engine.fit.installed_version", lambda flavour: "2")
    with pytest.raises(CapabilityError, match="built with TensorRT-RTX 1, this machine") as no:
        prove_bundle(moved[1], allow_code=True, runtime="tensorrt-rtx")
    assert no.value.hint == f"build it again here: toolkit build {moved[1]}"
    assert asked == []
    monkeypatch.setattr("toolkit.engine.fit.installed_version", lambda flavour: "1")
    report = prove_bundle(moved[1], allow_code=True, runtime="tensorrt-rtx")
    assert report.passed
    assert asked == [("tensorrt-rtx", "model.plan")]


def test_a_reference_that_does_not_fit_is_float32_and_says_so(moved, monkeypatch):
    monkeypatch.setattr("toolkit.pipeline.reference.available_memory", lambda: 10)
    report = prove_bundle(moved[1], allow_code=True)
    assert report.passed
    assert report.reference == "pytorch float32"
    assert report.notes[0].startswith("the reference is float32: float64 would take")
