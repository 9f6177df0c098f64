"""Factories: inputs are matched by name, weights must fit exactly, mistakes are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import weights, write_workshop
from toolkit.artifacts import TensorSpec
from toolkit.errors import CheckpointError, RecipeError
from toolkit.sources import FactorySource

X = TensorSpec("x", "float32", ("batch", 6))
EXTRA = TensorSpec("extra", "float32", ("batch", 3))


@pytest.fixture
def shop(tmp_path):
    return write_workshop(tmp_path)


def source(shop, kind="linear", **changes):
    given = {
        "name": kind, "target": f"shop:{kind}", "weights": shop / f"{kind}.safetensors",
        "available": (X,), "search": shop,
    }  # fmt: skip
    return FactorySource(**{**given, **changes})


def test_weights_are_those_of_the_file(shop):
    module = source(shop).load("float64")
    x = torch.ones(1, 6, dtype=torch.float64)
    own = {name: value.double() for name, value in weights("linear", 0).items()}
    expected = x @ own["inner.weight"].T + own["inner.bias"]
    torch.testing.assert_close(module(x=x)[0], expected)


def test_inputs_are_those_forward_takes(shop):
    assert source(shop, available=(EXTRA, X)).inputs == (X,)
    assert source(shop, "two_inputs", available=(EXTRA, X)).inputs == (X, EXTRA)


def test_renamed_input_keeps_its_type(shop):
    pixels = TensorSpec("pixels", "float32", ("batch", 6), low=0, high=1)
    (found,) = source(shop, available=(pixels,), rename={"x": "pixels"}).inputs
    assert (found.name, found.shape, found.low, found.high) == ("x", ("batch", 6), 0, 1)


@pytest.mark.parametrize(
    ("changes", "text", "hint"),
    [
        (
            {"available": (EXTRA,)},
            "needs an input 'x', which the recipe does not have",
            "inputs are extra",
        ),
        (
            {"rename": {"q": "x"}},
            "renames 'q', which forward does not take",
            "its parameters are x",
        ),
        ({"target": "nowhere:f"}, "cannot import 'nowhere'", "looked for beside the recipe"),
        ({"target": "shop:lineal"}, "shop has no callable 'lineal'", "linear"),
        ({"kwargs": {"depth": 3}}, "cannot be called with its kwargs", "its signature is"),
        ({"target": "shop:not_a_module"}, "returned int, not a torch.nn.Module", ""),
    ],
)
def test_mistake_in_the_recipe_is_named(shop, changes, text, hint):
    with pytest.raises(RecipeError, match=text) as found:
        _ = source(shop, **changes).inputs
    assert hint in found.value.hint


def test_weights_must_fit_exactly(shop):
    harmed = weights("linear")
    harmed["inner.weight"] = torch.zeros(4, 7)
    del harmed["inner.bias"]
    harmed["surplus"] = torch.zeros(1)
    save_file(harmed, shop / "harmed.safetensors")
    with pytest.raises(
        CheckpointError, match=r"harmed\.safetensors does not fit shop:linear"
    ) as found:
        source(shop, weights=shop / "harmed.safetensors").load()
    assert "the file lacks inner.bias" in found.value.message
    assert "inner.weight (file (4, 7), module (4, 6))" in found.value.message
    assert "surplus" in found.value.message


def test_outputs_must_be_as_many_as_named(shop):
    module = source(shop, outputs=("a", "b")).load()
    with pytest.raises(RecipeError, match="returned 1 tensors, but its outputs are a, b"):
        module(x=torch.zeros(1, 6))


def test_import_path_is_as_before(shop):
    import sys

    before = list(sys.path)
    _ = source(shop).inputs
    assert sys.path == before
    assert np.isfinite(source(shop).load()(x=torch.ones(1, 6))[0].detach().numpy()).all()


def test_modules_of_one_name_beside_two_recipes_are_told_apart(tmp_path):
    for width in (2, 3):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "namesake.py").write_text(
            f"import torch\ndef make():\n    return torch.nn.Linear({width}, 1)\n"
        )
    spec = TensorSpec.parse("input", "float32[batch, 2]")
    widths = [
        FactorySource("m", "namesake:make", None, (spec,), search=tmp_path / str(width))
        .untrained(0)
        .module.in_features
        for width in (2, 3, 2)
    ]
    assert widths == [2, 3, 2]
