"""The commands on good input: what they print, and as JSON."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.moe_models import write_tiny
from tests.workshop import RECIPE, write_huggingface

SPARSE = """
model: {checkpoint: sparse}
shapes: {batch: [1, 1, 2], sequence: [1, 2, 3]}
export: {experts: dense}
parity: {cases: 1}
"""


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


def test_inspect_shows_experts(run, shop):
    """Of a checkpoint, of the graph made from it and of the bundle around that."""
    write_tiny(shop / "sparse", "mixtral", num_hidden_layers=1)
    (shop / "sparse.yaml").write_text(SPARSE)
    model = json.loads(run("inspect", "sparse", "--json").out)
    experts = 3 * 4 * 32 * 48  # gate, up and down of four
    assert model["experts"] == "4 in a layer, 2 for each token"
    assert model["active parameters per token"] == model["parameters"] - experts // 2
    assert model["parameters"] == sum(np.prod(row["shape"]) for row in model["tensors"])
    made = run("export", "sparse.yaml", "-o", "moe", "--json")
    assert made.code == 0, made.err
    graph = json.loads(run("inspect", "moe/model.onnx", "--json").out)
    (layer,) = graph["experts"]
    assert (layer["experts"], layer["k"], layer["lowering"]) == (4, 2, "experts_to_dense")
    assert layer["routing"] == "TopKGating: normalize 1, scale 1"
    assert (layer["parameters"], layer["active per token"]) == (experts, experts // 2)
    assert graph["active parameters per token"] == graph["parameters"] - experts // 2
    bundle = json.loads(run("inspect", "moe", "--json").out)
    assert bundle["experts"] == graph["experts"]
    assert bundle["experts lowered to"] == "dense"
    assert bundle["because"] == "the recipe says so"
    assert bundle["active parameters per token"] == graph["active parameters per token"]
    assert "active parameters per token" in run("inspect", "moe").out
    # A model without experts says nothing of them.
    assert not {"experts", "active parameters per token"} & set(
        json.loads(run("inspect", "linear.safetensors", "--json").out)
    )


def test_inspect_shows_why_a_lowering_was_chosen(run, bundle, shop):
    path = shop / "out/manifest.json"
    times = {"rows": {"1": 0.5, "64": 1.5}, "dense": {"1": 0.25}}
    record = {"lowering": "rows", "reason": "fastest", "milliseconds": times}
    path.write_text(json.dumps({**json.loads(path.read_text()), "experts": record}))
    found = json.loads(run("inspect", "out", "--json").out)
    assert found["because"] == "fastest"
    assert found["lowerings measured"] == [
        {"lowering": "rows", "ms for 1 tokens": 0.5, "ms for 64 tokens": 1.5},
        {"lowering": "dense", "ms for 1 tokens": 0.25, "ms for 64 tokens": ""},
    ]


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
