"""What a good recipe means: names, defaults, inputs, shapes, and the full text of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.text import DIGITS, read
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.errors import EngineError
from toolkit.recipe import (
    CheckpointModel,
    EnsembleModel,
    FactoryModel,
    OnnxFile,
    Recipe,
    check_shapes,
    engine_options,
    resolved_yaml,
)


def test_an_ensemble_of_factories_is_read():
    recipe = read(DIGITS)
    assert isinstance(recipe.model, EnsembleModel)
    ensemble = recipe.model.ensemble
    assert (ensemble.combine, ensemble.space, ensemble.output) == ("linear", "logits", None)
    assert ensemble.weights == (0.6, 0.4)
    cnn, mlp = recipe.leaves()
    assert isinstance(mlp, FactoryModel)
    assert (cnn.name, mlp.name, mlp.kwargs, mlp.outputs) == (
        "Cnn",
        "Mlp",
        {"width": 64},
        ("logits",),
    )
    assert mlp.weights.path == Path("models/mlp.safetensors")
    assert recipe.input_specs() == (TensorSpec("pixels", "float32", ("batch", 1, 8, 8)),)
    assert recipe.shapes == {"batch": DimRange(1, 4, 16)}


def test_defaults_are_those_of_the_reference():
    recipe = read("model: {checkpoint: runs/bert}")
    assert (recipe.export.opset, recipe.target, recipe.seed) == (20, "onnx", 0)
    assert (recipe.parity.cases, recipe.parity_seed, recipe.passes) == (32, 0, ())
    assert (recipe.engine.compute_capabilities, recipe.engine.profiles) == ((), {})
    assert isinstance(recipe.model, CheckpointModel)
    assert recipe.model.task == "auto"


def test_parity_may_have_a_seed_of_its_own():
    assert read("model: {checkpoint: a}\nseed: 3").parity_seed == 3
    assert read("model: {checkpoint: a}\nseed: 3\nparity: {seed: 5}").parity_seed == 5


def test_every_kind_may_be_the_whole_recipe():
    assert isinstance(read("model: {checkpoint: a}").model, CheckpointModel)
    assert isinstance(read("model: {onnx: a.onnx}").model, OnnxFile)
    assert isinstance(read(DIGITS).model, EnsembleModel)


def test_names_are_derived_and_made_unique():
    recipe = read(
        "model:\n"
        "  ensemble:\n"
        "    combine: linear\n"
        "    members:\n"
        "      - checkpoint: runs/my model\n"
        "      - onnx: exported/net.v2.onnx\n"
        "      - checkpoint: other/net.v2\n"
        "      - {checkpoint: x, name: net.v2_2}\n"
        "      - onnx: interpolation.onnx\n"
        "      - onnx: .hidden.onnx\n"
        "      - ensemble: {combine: linear, members: [{onnx: exported/net.v2.onnx}]}\n"
    )
    assert [model.name for _, model in recipe.models()] == [
        "ensemble",
        "my_model",
        "net.v2",
        "net.v2_3",
        "net.v2_2",
        "interpolation_2",
        "hidden",
        "ensemble_2",
        "net.v2_4",
    ]


def test_models_are_listed_with_their_places():
    places = [place for place, _ in read(DIGITS).models()]
    assert places == ["model", "model.ensemble.members[0]", "model.ensemble.members[1]"]


def test_inputs_say_ranges_and_masks():
    recipe = read(
        "model: {checkpoint: a}\n"
        "inputs:\n"
        "  input_ids: {type: 'int64[batch, sequence]', low: 0, high: 30522}\n"
        "  attention_mask: {type: 'int64[batch, sequence]', mask: true}\n"
        "shapes: {batch: [1, 4, 16], sequence: 128}\n"
    )
    ids, mask = recipe.input_specs()
    assert ids == TensorSpec("input_ids", "int64", ("batch", "sequence"), low=0, high=30522)
    assert mask == TensorSpec("attention_mask", "int64", ("batch", "sequence"), role="mask")
    assert recipe.shapes["sequence"] == DimRange(128, 128, 128)


def test_profiles_are_ranges_by_name():
    text = "engine: {profiles: {prefill: {sequence: [2, 64, 128]}, decode: {sequence: 1}}}"
    profiles = read("model: {onnx: a.onnx}\n" + text).engine.profiles
    assert list(profiles) == ["prefill", "decode"]
    assert profiles["prefill"] == {"sequence": DimRange(2, 64, 128)}
    assert profiles["decode"] == {"sequence": DimRange(1, 1, 1)}


def test_compute_capabilities_may_be_numbers_or_text():
    recipe = read("model: {onnx: a.onnx}\nengine: {compute_capabilities: [8.9, '12.0', 12.0]}")
    assert recipe.engine.compute_capabilities == ("8.9", "12.0", "12.0")


def test_memory_is_given_in_bytes_or_with_a_unit():
    text = "engine: {memory: {workspace: 2GiB, tactic_dram: 4096}, refit: identical, tf32: true}"
    recipe = read("model: {onnx: a.onnx}\n" + text)
    assert recipe.engine.memory == {"workspace": 2 << 30, "tactic_dram": 4096}
    options = engine_options(recipe.engine, "tensorrt", {"tf32": False})
    assert (options.memory["workspace"], options.refit, options.tf32) == (
        2 << 30,
        "identical",
        False,
    )


def test_what_a_flavour_lacks_is_left_out_of_its_options_unless_it_is_stated():
    recipe = read(
        "model: {onnx: a.onnx}\nengine: {plugin: aot, hardware_compatibility: ampere_plus}"
    )
    assert engine_options(recipe.engine, "tensorrt").plugin == "aot"
    options = engine_options(recipe.engine, "tensorrt-rtx")
    assert (options.plugin, options.hardware_compatibility) == ("none", "none")
    with pytest.raises(EngineError, match="found plugin aot: TensorRT-RTX takes no plugins"):
        engine_options(recipe.engine, "tensorrt-rtx", {"plugin": "aot"})


def test_yaml_scalars_follow_version_1_2():
    text = DIGITS.replace("width: 64", "a: no, b: 1e-3, c: 010, d: 2024-01-01, e: 1:30, f: ~")
    kwargs = read(text).leaves()[1].kwargs
    assert kwargs == {"a": "no", "b": 0.001, "c": 10, "d": "2024-01-01", "e": "1:30", "f": None}


def test_aliases_stand_for_what_they_name():
    recipe = read(
        "model: {checkpoint: a}\n"
        "inputs: {x: &t 'int64[batch, 3]', y: *t}\n"
        "shapes: {batch: &r [1, 2, 3]}\n"
    )
    assert [str(spec) for spec in recipe.input_specs()] == ["int64[batch, 3]"] * 2


def test_recipes_are_frozen():
    recipe = read(DIGITS)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 4


def test_building_a_recipe_leaves_the_models_given_alone():
    member = CheckpointModel.model_validate({"checkpoint": "a"})
    recipe = Recipe.model_validate({"model": member})
    assert (member.name, recipe.model.name) == ("", "a")


def test_the_resolved_text_says_everything():
    assert resolved_yaml(read(DIGITS)) == (
        "model:\n"
        "  name: ensemble\n"
        "  ensemble:\n"
        "    combine: linear\n"
        "    space: logits\n"
        "    weights:\n"
        "    - 0.6\n"
        "    - 0.4\n"
        "    members:\n"
        "    - name: Cnn\n"
        "      factory: digits.models:Cnn\n"
        "      weights: cnn.safetensors\n"
        "      outputs:\n"
        "      - logits\n"
        "    - name: Mlp\n"
        "      factory: digits.models:Mlp\n"
        "      weights: mlp.safetensors\n"
        "      kwargs:\n"
        "        width: 64\n"
        "      outputs:\n"
        "      - logits\n"
        "inputs:\n"
        "  pixels: float32[batch, 1, 8, 8]\n"
        "shapes:\n"
        "  batch:\n"
        "  - 1\n"
        "  - 4\n"
        "  - 16\n"
        "export:\n"
        "  opset: 20\n"
        "  precision: float32\n"
        "  io: keep\n"
        "  experts: auto\n"
        "  silent_neurons: auto\n"
        "target: onnx\n"
        "engine:\n"
        "  tf32: false\n"
        "  sparse: false\n"
        "  refit: none\n"
        "  strip_weights: false\n"
        "  weight_streaming: false\n"
        "  version_compatible: false\n"
        "  exclude_lean_runtime: false\n"
        "  hardware_compatibility: none\n"
        "  plugin: none\n"
        "  timing_cache: auto\n"
        "  timing_cache_strict: false\n"
        "parity:\n"
        "  cases: 32\n"
        "seed: 0\n"
    )


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**50), 10**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(
        ["no", "1e-3", "010", "0o7", "~", "null", "1:30", ".5", "+1", "0x1F", "=", "<<"]
    )
)
LEAF = st.one_of(
    st.fixed_dictionaries({"checkpoint": st.sampled_from(["a", "runs/b", "c d"])}),
    st.fixed_dictionaries({"onnx": st.sampled_from(["a.onnx", "é/ß.onnx"])}),
    st.fixed_dictionaries(
        {
            "factory": st.just("pkg.mod:Net"),
            "weights": st.just("w.safetensors"),
            "kwargs": st.dictionaries(TEXT, SCALARS, max_size=4),
            "rename": st.dictionaries(TEXT.filter(bool), st.just("x"), max_size=1),
        }
    ),
)
MODELS = st.recursive(
    LEAF,
    lambda inner: st.fixed_dictionaries(
        {
            "ensemble": st.fixed_dictionaries(
                {
                    "combine": st.sampled_from(["linear", "log_linear"]),
                    "members": st.lists(inner, min_size=1, max_size=3),
                }
            )
        }
    ),
    max_leaves=5,
)


@given(model=MODELS, seed=st.integers(0, 2**63 - 1), size=st.integers(1, 99))
def test_the_resolved_text_loads_as_an_equal_recipe(model, seed, size):
    data = {"model": model, "seed": seed, "inputs": {"x": "int64[n]"}, "shapes": {"n": size}}
    recipe = read(yaml.safe_dump(data, allow_unicode=True))
    text = resolved_yaml(recipe)
    again = read(text)
    assert again == recipe
    assert resolved_yaml(again) == text
    names = [found.name for _, found in recipe.models()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "text", ["1e-3", "-1e5", "1.", ".5", "+.5e3", "0o17", "0x1F", "010", "1_000", "no", "~", ".inf"]
)
def test_text_that_looks_like_something_else_stays_text(text):
    recipe = read(DIGITS.replace("width: 64", f"width: '{text}'"))
    dumped = resolved_yaml(recipe)
    assert read(dumped).leaves()[1].kwargs == {"width": text}
    # Readers of YAML 1.1 must agree.
    assert f"width: '{text}'" in dumped
    assert yaml.safe_load(dumped)["model"]["ensemble"]["members"][1]["kwargs"]["width"] == text


def test_shapes_are_checked_for_inputs_only_a_model_knows():
    specs = [TensorSpec.parse("ids", "int64[batch, sequence]")]
    problems = check_shapes(specs, {"batch": 1, "sequnce": 2})
    assert [(p.path, p.message, p.hint) for p in problems] == [
        (
            ("shapes",),
            "dimension 'sequence' of input 'ids' has no range",
            "add sequence: [min, opt, max] or one number",
        ),
        (("shapes", "sequnce"), "no input has this dimension", "did you mean 'sequence'?"),
    ]
    assert check_shapes(specs, {"batch": 1, "sequence": 2}) == []


def test_reading_recipes_loads_no_framework():
    code = (
        "import sys, toolkit.recipe; "
        "print([m for m in ('torch', 'onnx', 'onnx_ir', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
