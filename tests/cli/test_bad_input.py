"""Every mistake a user can make: one clear error, a hint, the right code, and nothing left."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import RECIPE, weights, write_huggingface, write_recipe


def listing(folder):
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in str(p)
    )


def refused(run, shop, text, *arguments, code=1):
    """Export ``text`` and return the error, having checked everything but its words."""
    write_recipe(shop, text)
    before = listing(shop.parent)
    found = run("export", "recipe.yaml", "-o", "out", *(arguments or ("--allow-code",)))
    assert found.code == code, found.err
    assert "Traceback" not in found.err
    assert found.out == ""
    assert listing(shop.parent) == before
    lines = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return found.err


RECIPES = {
    "empty": ("", "is empty, wanted a recipe", "starts with model:"),
    "bad yaml": ("model: [", "recipe.yaml", ""),
    "list": ("- a\n", "found a list of 1 at the top, wanted a mapping", ""),
    "unknown key": (RECIPE + "targt: onnx\n", "targt: unknown key", "did you mean 'target'?"),
    "wrong type": (RECIPE.replace("[1, 4, 8]", "many"), "shapes.batch: found 'many'", ""),
    "shapes out of order": (RECIPE.replace("[1, 4, 8]", "[4, 1, 8]"), "wanted 1 <= min <= opt", ""),
    "weights do not sum": (
        RECIPE.replace("0.25, 0.75", "0.25, 0.5"),
        "weights sum to 0.75, wanted 1",
        "normalised: [0.333333, 0.666667]",
    ),
    "negative weight": (RECIPE.replace("0.25, 0.75", "-0.25, 1.25"), "weights[0]", ""),
    "wrong number of weights": (
        RECIPE.replace("0.25, 0.75", "1.0"),
        "found 1 weights for 2 members",
        "",
    ),
    "no such output": (
        RECIPE.replace("combine: linear", "combine: linear\n    output: probs"),
        "combines output 'probs', which member 'linear' does not have",
        "linear has logits; deep has logits",
    ),
    "path escape": (
        RECIPE.replace("weights: linear.safetensors", "weights: ../../x.safetensors"),
        "leads out of",
        "--root",
    ),
    "absolute path": (
        RECIPE.replace("weights: linear.safetensors", "weights: /etc/passwd"),
        "found the absolute path '/etc/passwd'",
        "--root",
    ),
    "missing weights": (
        RECIPE.replace("weights: linear.safetensors", "weights: lost.safetensors"),
        "'lost.safetensors' does not exist",
        "linear.safetensors",
    ),
    "pickle by name": (
        RECIPE.replace("weights: linear.safetensors", "weights: model.pt"),
        "is a pickle, and loading a pickle runs whatever code it holds",
        "save_file(",
    ),
    "unknown factory": (
        RECIPE.replace("shop:linear", "shop:lineal"),
        "no callable 'lineal'",
        "linear",
    ),
    "mismatched classes": (
        RECIPE.replace("deep.safetensors}", "deep.safetensors, kwargs: {classes: 5}}"),
        "deep.safetensors does not fit shop:deep",
        "",
    ),
}


@pytest.mark.parametrize("case", list(RECIPES))
def test_recipe_mistake(run, shop, case):
    text, error, hint = RECIPES[case]
    found = refused(run, shop, text)
    assert error in found
    assert hint in found


def test_missing_recipe_lists_what_is_there(run, shop):
    found = run("export", "recpe.yaml")
    assert found.code == 1
    assert "error: recpe.yaml does not exist" in found.err
    assert "recipe.yaml" in found.err.split("hint:")[1]


def test_factory_without_allow_code(run, shop):
    found = refused(run, shop, RECIPE, "--json")
    assert "shop:linear is Python code that the recipe would run" in found
    assert "--allow-code" in found


def test_output_shapes_that_disagree_are_listed_by_member(run, shop):
    generator = torch.Generator().manual_seed(0)
    five = {
        "inner.weight": torch.randn(5, 6, generator=generator),
        "inner.bias": torch.randn(5, generator=generator),
    }
    save_file(five, shop / "five.safetensors")
    text = RECIPE.replace(
        '{factory: "shop:deep", weights: deep.safetensors}',
        '{factory: "shop:linear", weights: five.safetensors, kwargs: {classes: 5}, name: five}',
    )
    found = refused(run, shop, text)
    assert "[batch, 4]" in found
    assert "[batch, 5]" in found
    assert "'five'" in found or "five" in found


HEADERS = {
    "header too long": (struct.pack("<Q", 2**40), "header"),
    "truncated": (b"\x08\x00", "bytes"),
    "not JSON": (struct.pack("<Q", 4) + b"{{{{", "header"),
}


def file_with(header, data=b""):
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS |= {
    "offsets overlapping": (
        file_with({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
        "overlap",
    ),
    "dtype unknown": (file_with({"a": {**ENTRY, "dtype": "F33"}}, bytes(8)), "F33"),
    "data truncated": (file_with({"a": ENTRY}, bytes(5)), "a"),
    "a pickle in disguise": (pickle.dumps({"a": 1}), "pickle"),
}


@pytest.mark.parametrize("case", list(HEADERS))
def test_malformed_weight_file(run, shop, case):
    raw, text = HEADERS[case]
    (shop / "linear.safetensors").write_bytes(raw)
    found = refused(run, shop, RECIPE)
    assert "linear.safetensors" in found
    assert text in found


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(run, shop, value):
    harmed = weights("linear")
    harmed["inner.bias"][2] = value
    save_file(harmed, shop / "linear.safetensors")
    assert "inner.bias" in refused(run, shop, RECIPE)


def huggingface(shop, name="bert"):
    write_huggingface(shop / name, "bert")
    return f"model: {{checkpoint: {name}}}\nshapes: {{batch: [1, 2, 4], sequence: [1, 8, 40]}}\n"


def test_folder_without_config(run, shop):
    text = huggingface(shop)
    (shop / "bert" / "config.json").unlink()
    found = refused(run, shop, text)
    assert "config.json" in found
    assert "model.safetensors" in found


def test_folder_with_pickled_weights_gets_the_conversion_command(run, shop):
    text = huggingface(shop)
    (shop / "bert" / "model.safetensors").rename(shop / "bert" / "pytorch_model.bin")
    found = refused(run, shop, text)
    assert "pytorch_model.bin" in found
    assert "weights_only=True" in found


def test_sequence_longer_than_the_positions(run, shop):
    found = refused(run, shop, huggingface(shop).replace("40]", "41]"))
    assert "shapes.sequence reaches 41, but 'bert' has 40 positions" in found


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_output_that_is_no_bundle_is_kept(run, shop, kind):
    if kind == "file":
        (shop / "out").write_text("thesis")
    else:
        (shop / "out").mkdir()
        (shop / "out" / "thesis").write_text("thesis")
    assert "not a bundle" in refused(run, shop, RECIPE)


def test_foreign_file_that_is_not_onnx(run, shop):
    (shop / "a.onnx").write_bytes(b"no graph")
    found = refused(run, shop, "model: {onnx: a.onnx}\nshapes: {batch: 2}\n")
    assert "a.onnx" in found
    assert "not an ONNX model" in found


def start(shop, **options):
    command = [sys.executable, "-c", "from toolkit.cli import main; main()"]
    return subprocess.Popen(
        [*command, "export", "recipe.yaml", "-o", "out", "--allow-code"],
        cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_full_disk_leaves_nothing(shop):
    """No file may grow past 2000 bytes, so writing fails as on a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    before = listing(shop.parent)
    process = start(shop, preexec_fn=limit, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    _, error = process.communicate()
    assert process.returncode == 1, error
    assert "error: the disk is full" in error, error
    assert listing(shop.parent) == before


@pytest.mark.parametrize("stage", ["export models", "prove"])
def test_interrupt_in_the_middle_leaves_nothing(shop, stage):
    before = listing(shop.parent)
    with start(shop) as process:
        for line in process.stderr:
            if line.startswith(stage):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130, error
    assert "error: interrupted" in error
    assert listing(shop.parent) == before
