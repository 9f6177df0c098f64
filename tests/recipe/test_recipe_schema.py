"""The JSON Schema for editors accepts what the recipe accepts, and describes every key."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.recipe.text import DIGITS, read
from toolkit.recipe import recipe_schema, resolved_yaml

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "recipe.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
SAMPLES = sorted((ROOT / "samples" / "recipes").glob("*.yaml"))
SCHEMA = recipe_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def problems(data: object) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


def test_it_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == "Recipe"


@pytest.mark.parametrize("text", [DIGITS, *BLOCKS], ids=lambda text: text.splitlines()[1][:40])
def test_the_reference_and_the_schema_agree(text):
    assert problems(yaml.safe_load(text)) == []
    recipe = read(text)
    assert problems(yaml.safe_load(resolved_yaml(recipe))) == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_fit_the_schema(path):
    assert problems(yaml.safe_load(path.read_text())) == []
    read(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "seed: 1",
        "model: {}",
        "model: {checkpoint: a, onnx: b}",
        "model: {checkpoint: a, task: x}",
        "model: {ensemble: {combine: linear, members: []}}",
        "model: {ensemble: {combine: linear, weights: [-1], members: [{onnx: a}]}}",
        "model: {onnx: a, name: 'a b'}",
        "model: {onnx: a}\nseeed: 1",
        "model: {onnx: a}\ninputs: {x: float32}",
        "model: {onnx: a}\nshapes: {x: [1, 2]}",
        "model: {onnx: a}\nexport: {opset: 17}",
        "model: {onnx: a}\nparity: {cases: 0}",
    ],
)
def test_the_schema_refuses_what_a_schema_can(text):
    assert problems(yaml.safe_load(text))


def keys(schema: dict) -> list[tuple[str, dict]]:
    found = []
    for definition, body in {"Recipe": schema, **schema["$defs"]}.items():
        shapes = [body, *body.get("anyOf", [])]
        for shape in shapes:
            found += [(f"{definition}.{k}", v) for k, v in shape.get("properties", {}).items()]
    return found


def test_every_key_is_described():
    described = dict(keys(SCHEMA))
    assert {"Recipe.model", "EnsembleSpec.weights", "Input.low", "ParitySettings.cases"} <= set(
        described
    )
    assert [name for name, body in described.items() if not body.get("description")] == []


def test_every_key_stands_in_the_reference():
    text = REFERENCE.read_text()
    missing = [name for name, _ in keys(SCHEMA) if f"`{name.partition('.')[2]}`" not in text]
    assert missing == []
