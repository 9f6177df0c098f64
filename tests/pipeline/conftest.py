"""A workshop of small models, exported once for all the tests that look at the result."""

from __future__ import annotations

import pytest

from tests.workshop import write_recipe, write_workshop
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe


@pytest.fixture
def shop(tmp_path):
    return write_workshop(tmp_path / "shop")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """(workshop folder, bundle folder, outcome) of a linear ensemble of two."""
    folder = write_workshop(tmp_path_factory.mktemp("exported") / "shop")
    recipe = load_recipe(write_recipe(folder), allow_code=True)
    out = folder.parent / "bundle"
    return folder, out, export_recipe(recipe, folder, out)
