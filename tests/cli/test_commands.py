"""The commands on good input: what they print, and as JSON."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.workshop import RECIPE, write_huggingface


@pytest.fixture
def bundle(run, shop):
    found = run("export", "recipe.yaml", "-o", "out", "--allow-code", "--json")
    assert found.code == 0, found.err
    return json.loads(found.out)


def test_export_reports_the_bundle(bundle, shop):
    assert bundle["bundle"] == "out"
    assert bundle["verdict"] == "passed"
    assert bundle["engine"] is None
    assert bundle["files"]["model.onnx"] == (shop / "out/model.onnx").stat().st_size


def test_export_names_the_bundle_after_the_recipe(run, shop):
    found = run("export", "recipe.yaml", "--allow-code")
    assert found.code == 0
    assert (shop / "recipe" / "manifest.json").is_file()
    assert "parity passed" in found.out
    assert "export models" in found.err  # progress goes to standard error


def test_parity_again(run, bundle, shop):
    found = run("parity", "out", "--allow-code", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out) == json.loads((shop / "out/parity.json").read_text())


def test_changed_file_exits_5(run, bundle, shop):
    with (shop / "out" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    found = run("parity", "out", "--allow-code")
    assert found.code == 5
    assert "error: out differs from its manifest: model.onnx has changed" in found.err
    assert "--as-is" in found.err


def test_missing_target_exits_4(run, shop):
    found = run("export", "recipe.yaml", "--allow-code", "--target", "tensorrt")
    assert found.code == 4
    assert "lacks" in found.err


def test_inspect_knows_every_kind(run, bundle, shop):
    write_huggingface(shop / "bert", "bert")
    kinds = {
        "out": "bundle", "out/model.onnx": "onnx", "recipe.yaml": "recipe",
        "linear.safetensors": "checkpoint", "bert": "checkpoint",
    }  # fmt: skip
    for path, kind in kinds.items():
        assert json.loads(run("inspect", path, "--json").out)["kind"] == kind
        assert f"({kind})" in run("inspect", path).out


def test_inspect_counts_bytes_of_tensors(run, shop):
    found = json.loads(run("inspect", "linear.safetensors", "--json").out)
    assert {row["name"]: row["bytes"] for row in found["tensors"]} == {
        "inner.weight": 96, "inner.bias": 16,
    }  # fmt: skip
    assert found["bytes"] == 112


def test_inspect_shows_tied_weights(run, shop):
    head = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensors = {"embed.weight": head, "lm_head.weight": head, "other.weight": head + 1}
    folder = shop / "tied"
    for tie, stored in ((True, ["embed.weight"]), (False, list(tensors)), (True, list(tensors))):
        folder.mkdir(exist_ok=True)
        text = json.dumps({"vocab_size": 4, "tie_word_embeddings": tie})
        (folder / "config.json").write_text(text)
        save_file({name: tensors[name] for name in stored}, folder / "model.safetensors")
        found = json.loads(run("inspect", "tied", "--json").out)
        twice = {row["name"]: row["stored as well in"] for row in found["tensors"]}
        if len(stored) == 1:
            assert "is the input embedding" in found["tied weights"]
        else:
            assert found["tied weights"] == "lm_head.weight equals embed.weight, both are stored"
            assert twice == {"embed.weight": "", "lm_head.weight": "embed.weight",
                             "other.weight": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"), [("nothing", "does not exist"), ("shop.py", "of no kind")]
)
def test_inspect_of_other_things(run, shop, name, text):
    found = run("inspect", name)
    assert found.code == 1
    assert text in found.err


def test_doctor_tells_what_is_missing_and_how_to_get_it(run):
    findings = {f["name"]: f for f in json.loads(run("doctor", "--json").out)}
    assert findings["torch"]["ok"]
    assert findings["tensorrt"]["ok"] != findings["tensorrt"]["mend"].startswith("pip install")
    assert "This machine" in run("doctor").out


def test_schema_accepts_the_recipe_and_refuses_a_typo(run):
    schema = json.loads(run("schema").out)
    recipe = yaml.safe_load(RECIPE)
    jsonschema.validate(recipe, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**recipe, "targt": "onnx"}, schema)
