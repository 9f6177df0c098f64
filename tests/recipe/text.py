"""Recipes as text, and what reading them says."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import RecipeError
from toolkit.recipe import LoadContext, Recipe, parse_recipe

DIGITS = """\
model:
  ensemble:
    combine: linear
    weights: [0.6, 0.4]
    members:
      - {factory: "digits.models:Cnn", weights: cnn.safetensors}
      - {factory: "digits.models:Mlp", weights: mlp.safetensors, kwargs: {width: 64}}
inputs:
  pixels: float32[batch, 1, 8, 8]
shapes: {batch: [1, 4, 16]}
"""


def read(text: str, *, root: Path | str = "models", allow_code: bool = True, **options) -> Recipe:
    """Parse a recipe whose files need not exist."""
    context = LoadContext(
        root=Path(root),
        explicit_root=options.get("explicit_root", False),
        allow_code=allow_code,
        check_files=options.get("check_files", False),
    )
    return parse_recipe(text, "r.yaml", context)


def refused(text: str, **options) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read(text, **options)
    return caught.value
