"""``check`` and ``build``: what they say on a machine without a GPU."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from toolkit.bundle import Manifest, open_bundle

SCATTER = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,4] x, int64[k,1] i, float[k,4] u) => (float[batch,4] y)
{ [add] y = ScatterND <reduction = "add"> (x, i, u) }"""
PLAIN = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,4] x) => (float[batch,3] y) { y = MatMul (x, weight) }"""
NESTED = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,4] x, bool c) => (float[batch,k] y)
{ [choose] y = If (c) <then_branch = t () => (float[batch,4] a) { a = Relu (x) },
  else_branch = e () => (float[batch,8] b) { b = Concat <axis = 1> (x, x) }> }"""


def write(path, text):
    model = parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    if "weight" in text:
        model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, path)


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in {"scatter": SCATTER, "plain": PLAIN, "nested": NESTED}.items():
        write(tmp_path / f"{name}.onnx", text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(run, shop):
    """Of a machine that cannot build the engine which is asked for."""
    found = run("export", "recipe.yaml", "-o", "out", "--allow-code", "--target", "tensorrt")
    assert found.code == 4
    return found


def test_check_names_rule_and_node_and_what_helps(run, files):
    found = run("check", "scatter.onnx")
    assert found.code == 1
    assert " ".join(found.out.split()) == (
        "node 'add' (ScatterND): found reduction 'add', wanted ScatterND without a reduction "
        "[scatternd-reduction] TensorRT 10 to before 12; known from: importer, ScatterND; RTX "
        "1.7.1 gather the old values, combine them and scatter the result "
        "1 refused, 0 refused by some versions only"
    )


def test_check_has_nothing_against_a_graph_that_is_fine(run, files):
    found = run("check", "plain.onnx", "--target", "tensorrt-rtx", "--json")
    assert found.code == 0
    assert json.loads(found.out)["violations"] == []


def test_inspect_shows_what_builders_refuse_in_a_line_each(run, files, bundle, shop):
    found = json.loads(run("inspect", files / "nested.onnx", "--json").out)
    assert found["refused by tensorrt"] == "0, and 1 by some versions only"
    assert found["refused by tensorrt-rtx"] == "1, and 0 by some versions only"
    rows = [(row["builder"], row["rule"], row["node"]) for row in found["what builders refuse"]]
    assert rows == [("tensorrt", "if-shape", "choose"), ("tensorrt-rtx", "if-shape", "choose")]
    said = json.loads(run("inspect", shop / "out", "--json").out)
    assert said["refused by tensorrt"] == "nothing that is known"
    assert "refused by tensorrt-rtx" not in said  # its target is the other
    shown = run("inspect", files / "nested.onnx").out
    assert sum("if-shape" in line for line in shown.splitlines()) == 2


def test_check_is_no_failure_where_some_versions_take_the_graph(run, files):
    for version, code in {None: 0, "10.9": 1, "10.13": 0}.items():
        extra = ("--version", version) if version else ()
        found = run("check", "nested.onnx", "--json", *extra)
        assert (version, found.code) == (version, code)
    (violation,) = json.loads(run("check", "nested.onnx", "--json").out)["violations"]
    assert (violation["rule"], violation["always"]) == ("if-shape", False)
    assert violation["versions"] == "TensorRT 10 to before 10.11"


def test_check_reads_the_ranges_of_a_bundle(run, bundle, shop):
    assert run("check", "out").code == 0
    path = shop / "out" / "manifest.json"
    manifest = Manifest.read(path).model_copy(update={"shapes": {}})
    manifest.write(path)
    found = run("check", "out", "--json")
    assert {each["rule"] for each in json.loads(found.out)["violations"]} == {"dimension-range"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["check", "absent.onnx"], "absent.onnx does not exist"),
        (["check", "."], "is no bundle, wanted a bundle or an .onnx file"),
        (["check", "plain.onnx", "--version", "9.1"], "nothing is known about TensorRT 9.1"),
        (["build", "plain.onnx"], "does not say which engine to build"),
        (["build", "absent.onnx", "--target", "tensorrt"], "there is no ONNX file at absent.onnx"),
        (["build", "plain.onnx", "--target", "tensorrt-rtx"], "dimension 'batch' has no range"),
        (["build", "plain.onnx", "--target", "tensorrt-rtx", "--shape", "batch"],
         "wanted NAME=MIN,OPT,MAX or NAME=SIZE"),
        (["build", "plain.onnx", "--target", "tensorrt-rtx", "--shape", "batch=1,4"],
         "wanted NAME=MIN,OPT,MAX or NAME=SIZE"),
        (["build", "plain.onnx", "--target", "tensorrt-rtx", "--profile", "batch=1"],
         "wanted PROFILE:NAME=MIN,OPT,MAX"),
        (["build", "scatter.onnx", "--target", "tensorrt", "--shape", "batch=1", "--shape", "k=1"],
         "TensorRT cannot build this graph: node 'add' (ScatterND): found reduction 'add'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(run, files, arguments, text):
    found = run(*arguments)
    assert found.code == 1
    assert text in " ".join(found.err.split())
    assert not list(files.glob("*.plan"))


def test_build_without_tensorrt_exits_4_and_says_what_is_missing(run, files):
    found = run("build", "plain.onnx", "--target", "tensorrt", "--shape", "batch=1,4,16")
    assert found.code == 4
    said = " ".join(found.err.split())
    assert "this machine lacks the Python package tensorrt and an NVIDIA GPU" in said
    assert "pip install 'ensemble-to-engine[gpu]'" in said


def test_export_for_tensorrt_leaves_a_whole_bundle_and_the_command_that_finishes_it(bundle, shop):
    said = " ".join(bundle.err.split())
    assert "out holds the proven graph, without its engine" in said
    assert "then: toolkit build out" in said
    assert "parity passed" in bundle.out
    manifest = open_bundle(shop / "out").manifest
    assert (manifest.verdict, manifest.target, manifest.engine) == ("passed", "tensorrt", None)


def test_building_that_bundle_here_exits_4_and_leaves_it_as_it_is(run, bundle, shop):
    before = (shop / "out" / "manifest.json").read_bytes()
    found = run("build", "out", "--target", "tensorrt")
    assert found.code == 4
    said = " ".join(found.err.split())
    assert "this machine lacks the Python package tensorrt and an NVIDIA GPU" in said
    assert "pip install 'ensemble-to-engine[gpu]'" in said
    assert (shop / "out" / "manifest.json").read_bytes() == before
    assert not (shop / "out" / "model.plan").exists()


@pytest.mark.rtx
def test_build_finishes_a_bundle(run, bundle, shop):
    found = run("build", "out", "--target", "tensorrt-rtx", "--profile", "one:batch=1",
                "--profile", "many:batch=2,4,4", "--json")  # fmt: skip
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["profiles"] == ["one", "many"]
    manifest = open_bundle(shop / "out").manifest  # which holds every file against its hash
    assert manifest.target == "tensorrt-rtx"
    assert manifest.engine.profiles == ("one", "many")
    assert manifest.files["model.plan"].bytes == said["bytes"]
    engine = manifest.engine
    assert (engine.kinds["MATRIX_MULTIPLY"], engine.dtypes["float32"], engine.conditionals) == (
        3, said["outputs_by_dtype"]["float32"], 0,
    )  # fmt: skip
    assert said["notes"] == []
    found = json.loads(run("inspect", "out", "--json").out)
    assert found["profiles"] == "one, many"


@pytest.mark.rtx
def test_a_plan_says_what_made_it_and_what_needs_a_gpu(run, bundle, shop, monkeypatch):
    asked = ("--profiling-verbosity", "detailed", "--memory", "workspace=64MiB")
    assert run("build", "out", "--target", "tensorrt-rtx", *asked).code == 0
    engine = open_bundle(shop / "out").manifest.engine
    monkeypatch.setattr("toolkit.engine.fit.device_capability", lambda: None)
    found = json.loads(run("inspect", "out/model.plan", "--json").out)
    assert found["built with"] == f"TensorRT-RTX {engine.version}"
    wanted = "memory workspace 67108864, profiling_verbosity detailed"
    assert found["asked for"] == wanted
    assert f"{engine.layers}: " in found["layers of the parsed network"]
    assert "3 MATRIX_MULTIPLY" in found["layers of the parsed network"]
    assert "lacks an NVIDIA GPU with its driver" in found["layers, precision and memory"]
    # A machine with a GPU and another release is told so, and how to go on.
    monkeypatch.setattr("toolkit.engine.fit.device_capability", lambda: "8.9")
    monkeypatch.setattr("toolkit.engine.fit.installed_version", lambda flavour: "9.9.9")
    refused = run("inspect", "out/model.plan")
    assert refused.code == 4
    assert f"was built with TensorRT-RTX {engine.version}, this machine has 9.9.9" in refused.err
    assert "toolkit build out" in refused.err
    # A plan that is not the manifest's is not taken for it.
    with (shop / "out" / "model.plan").open("ab") as file:
        file.write(b"\0")
    assert run("inspect", "out/model.plan").code == 5
    shutil.copy(shop / "out" / "model.plan", shop / "alone.plan")
    monkeypatch.setattr("toolkit.engine.fit.device_capability", lambda: None)
    alone = json.loads(run("inspect", "alone.plan", "--json").out)
    assert set(alone) == {"kind", "built with", "bytes", "layers, precision and memory"}


@pytest.mark.rtx
def test_what_the_bundles_recipe_says_of_the_engine_is_how_it_is_built(run, shop):
    recipe = (shop / "recipe.yaml").read_text()
    (shop / "recipe.yaml").write_text(
        recipe + "target: tensorrt\nengine:\n  profiles: {one: {batch: 1}}\n"
        "  plugin: aot\n  aux_streams: 1\n"
    )
    assert run("export", "recipe.yaml", "-o", "out", "--allow-code").code == 4
    found = run("build", "out", "--target", "tensorrt-rtx", "--aux-streams", "0", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["profiles"] == ["one"]
    assert said["options"] == {"aux_streams": 0}  # and no plugin, which RTX does not have


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--memory", "workspace"], "found the memory 'workspace', wanted POOL=SIZE"),
        (["--memory", "workspace=2GB"], "found '2GB', wanted a size such as 512MiB"),
        (["--memory", "l2=1MiB"], "found memory 'l2', wanted a pool"),
        (["--version-compatible"], "TensorRT-RTX comes without the lean runtime"),
        (["--timing-cache", "mine"], "found timing_cache mine: TensorRT-RTX times no kernels"),
        (["--plugin", "aot"], "found plugin aot: TensorRT-RTX takes no plugins"),
    ],
)
def test_an_option_that_cannot_be_had_is_refused_before_anything_is_built(run, files, option, text):
    found = run("build", "plain.onnx", "--target", "tensorrt-rtx", "--shape", "batch=1", *option)
    assert found.code == 1
    assert text in " ".join(found.err.split())


@pytest.mark.rtx
def test_build_leaves_the_bundle_alone_if_the_plan_goes_elsewhere(run, bundle, shop):
    before = (shop / "out" / "manifest.json").read_bytes()
    found = run("build", "out", "--target", "tensorrt-rtx", "-o", "there.plan")
    assert found.code == 0, found.err
    assert (shop / "there.plan").stat().st_size > 1000
    assert (shop / "out" / "manifest.json").read_bytes() == before
    assert "Not run: that needs an NVIDIA GPU" in " ".join(found.out.split())


def test_build_refuses_a_changed_bundle_and_a_failed_one(run, bundle, shop):
    shutil.copytree(shop / "out", shop / "failed")
    path = shop / "failed" / "manifest.json"
    Manifest.read(path).model_copy(update={"verdict": "failed"}).write(path)
    found = run("build", "failed")
    assert (found.code, "the proof of failed failed" in found.err) == (1, True)
    with (shop / "out" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert run("build", "out").code == 5


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ("one:rows=1", "profile 'one' has a range for 'rows', which is no dimension"),
        ("one:batch=1,4,99", "profile 'one' has batch from 1 to 99, wanted within"),
    ],
)
@pytest.mark.rtx
def test_a_profile_lies_within_what_is_proven(run, bundle, profile, text):
    found = run("build", "out", "--target", "tensorrt-rtx", "--profile", profile)
    assert (found.code, text in " ".join(found.err.split())) == (1, True)
