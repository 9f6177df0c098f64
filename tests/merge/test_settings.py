"""Gradients, filters and precedence resolve as mergekit's documentation says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merge.models import family, shapes
from tests.merge.test_merge import config
from toolkit.merge import plan
from toolkit.merge.conditions import Conditional
from toolkit.merge.layers import LayerName, depth, main_stack, split, stack_sizes
from toolkit.merge.settings import Place, evaluate


def method_of(folder, text, name):
    return next(o.method for o in plan(config(folder, text)).outputs if o.name == name)


def slerp_t(folder, parameters, name):
    text = (
        f"merge_method: slerp\nbase_model: base\nmodels: [{{model: a}}]\nparameters: {parameters}"
    )
    return method_of(folder, text, name).geometry.t


@pytest.fixture
def folder(tmp_path):
    return family(tmp_path)


@pytest.mark.parametrize(("layer", "wanted"), [(0, 0.0), (1, 0.5), (2, 1.0)])
def test_a_gradient_goes_from_the_first_layer_to_the_last(folder, layer, wanted):
    found = slerp_t(folder, "{t: [0, 1]}", f"model.layers.{layer}.mlp.up_proj.weight")
    assert found == wanted


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
)
def test_a_gradient_begins_outside_of_layers_even_behind_them(folder, name):
    assert slerp_t(folder, "{t: [0.25, 1]}", name) == 0.25


def test_filters_pick_by_part_of_the_name_and_the_first_that_fits_decides(folder):
    text = "{t: [{filter: self_attn, value: [0, 1]}, {filter: layers.1, value: 0.3}, {value: 0.7}]}"
    assert slerp_t(folder, text, "model.layers.1.self_attn.q_proj.weight") == 0.5
    assert slerp_t(folder, text, "model.layers.1.mlp.up_proj.weight") == 0.3
    assert slerp_t(folder, text, "model.layers.2.mlp.up_proj.weight") == 0.7
    assert slerp_t(folder, "{t: [{filter: '*', value: 0.2}]}", "lm_head.weight") == 0.2


def test_one_condition_needs_no_list(folder):
    assert slerp_t(folder, "{t: {value: 0.4}}", "lm_head.weight") == 0.4


def test_a_models_own_value_wins_and_falls_through_where_no_condition_fits(folder):
    text = """
merge_method: linear
models:
- model: a
  parameters: {weight: [{filter: mlp, value: 3}]}
- model: b
parameters: {weight: 1}
"""
    assert method_of(folder, text, "model.layers.0.mlp.up_proj.weight").weights == (0.75, 0.25)
    assert method_of(folder, text, "lm_head.weight").weights == (0.5, 0.5)


SLICES = """
merge_method: linear
slices:
- sources:
  - {model: a, layer_range: [0, 2], parameters: {weight: 2}}
  - {model: b, layer_range: [1, 3]}
  parameters: {weight: [1, 2]}
- sources:
  - {model: b, layer_range: [2, 3]}
parameters: {weight: [5, 6], normalize: false}
"""


@pytest.mark.parametrize(
    ("name", "weights", "sources"),
    [
        ("model.embed_tokens.weight", (2, 1), ["a:embed", "b:embed"]),
        ("model.layers.0.mlp.up_proj.weight", (2, 1), ["a:0", "b:1"]),
        ("model.layers.1.mlp.up_proj.weight", (2, 2), ["a:1", "b:2"]),
        ("model.layers.2.mlp.up_proj.weight", (6,), ["b:2"]),  # one layer is the last
        ("model.norm.weight", (5,), ["b:norm"]),
        ("lm_head.weight", (5,), ["b:head"]),
    ],
)
def test_slices_count_their_own_layers_and_have_their_own_parameters(
    folder, name, weights, sources
):
    output = next(o for o in plan(config(folder, SLICES)).outputs if o.name == name)
    assert output.method.weights == weights
    for source, wanted in zip(output.sources, sources, strict=True):
        model, _, part = wanted.partition(":")
        assert source.model == model
        assert f".{part}." in source.name or part in source.name


def test_a_sliced_model_has_all_tensors_of_so_many_layers_in_order(folder):
    made = plan(config(folder, SLICES))
    assert [o.name for o in made.outputs] == list(shapes(layers=3))
    assert made.config["num_hidden_layers"] == 3
    deeper = SLICES.replace("[2, 3]", "[0, 3]")
    made = plan(config(folder, deeper))
    assert [o.name for o in made.outputs] == list(shapes(layers=5))
    assert made.config["num_hidden_layers"] == 5


@given(
    values=st.lists(st.floats(-2, 2), min_size=1, max_size=6),
    at=st.floats(0, 1),
)
def test_a_gradient_is_linear_between_its_values_and_stays_within_them(values, at):
    found = evaluate((Conditional(tuple(values)),), Place("x", at))
    assert min(values) - 1e-12 <= found <= max(values) + 1e-12
    assert evaluate((Conditional(tuple(values)),), Place("x", 0)) == values[0]
    assert evaluate((Conditional(tuple(values)),), Place("x", 1)) == values[-1]


def test_a_gradient_of_flags_takes_the_one_before():
    flags = (Conditional((True, False, True)),)
    assert [evaluate(flags, Place("x", at)) for at in (0, 0.4, 0.6, 1)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.layers.3.mlp.experts.5.w1.weight", ("model.layers", 3, "mlp.experts.5.w1.weight")),
        ("transformer.h.11.attn.weight", ("transformer.h", 11, "attn.weight")),
        ("0.weight", ("", 0, "weight")),
        ("model.norm.weight", None),
        ("model.layers.3", None),
    ],
)
def test_names_are_taken_apart_at_the_first_number(name, wanted):
    found = split(name)
    assert found == (LayerName(*wanted) if wanted else None)
    if found:
        assert found.at(found.index) == name


def test_the_stack_that_slices_count_is_found_among_others():
    names = ["model.layers.7.x", "model.layers.0.mlp.experts.3.y", "vision.patch.0.z"]
    assert stack_sizes(names) == {"model.layers": 8, "vision.patch": 1}
    assert main_stack(stack_sizes(names), "m") == "model.layers"


def test_an_only_layer_is_the_last():
    assert [depth(0, 1), depth(0, 3), depth(2, 3)] == [1.0, 0.0, 1.0]
