"""The validator and a real server say the same of every configuration."""

from __future__ import annotations

import json
import subprocess
from http.client import HTTPException

import pytest

from tests.triton import describe_schema
from tests.triton.configurations import CONFIGURATIONS, write_all
from tests.triton.server import PYTHON, serving
from tests.workshop import write_recipe, write_workshop
from toolkit.package import PackageOptions, check_repository, package_triton
from toolkit.package.schema import new_config
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

pytestmark = pytest.mark.triton

# Server 2.51 refuses a warm-up with too many rows, and now and then crashes over it. An initial
# state of too few dims ends it, and missing Python code keeps it waiting for half a minute.
CRASHING = {"warmup_too_large", "state_fewer_dims", "python_missing"}


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A repository of every configuration."""
    folder = tmp_path_factory.mktemp("configurations")
    shop = write_workshop(folder / "shop")
    recipe = load_recipe(write_recipe(shop), allow_code=True)
    export_recipe(recipe, shop, folder / "bundle")
    package_triton(folder / "bundle", folder / "one", PackageOptions(name="good", device="cpu"))
    write_all(folder / "one" / "good", folder / "all")
    return folder / "all"


def command(repository):
    return [
        "tritonserver", f"--model-repository={repository}", "--model-control-mode=explicit",
        "--disable-auto-complete-config",
    ]  # fmt: skip


def load(server, name, seconds=200):
    """Whether the server loads it, and what it says if not."""
    status, content = server.get(f"v2/repository/models/{name}/load", b"{}", seconds)
    return status == 200, content.decode()


def load_all(server, names):
    """What ``load`` says of each, one by one: of many loads at once server 2.51 now and then dies.

    Ensembles come last, because a broken one stays in the server's graph of models.
    """
    said = {}
    for name in sorted(names, key=lambda name: name.startswith("ensemble")):
        server.check()
        said[name] = load(server, name)
    return said


@pytest.mark.timeout(600)  # a hundred loads take their time on a busy machine
def test_it_agrees_with_the_server_on_every_configuration(configured, backends, tmp_path):
    names = [name for name in CONFIGURATIONS if name not in CRASHING]
    with serving(
        command(configured), backends, tmp_path / "empty", wait_ready=False, patience=1
    ) as server:
        for name in ("good", "python"):  # what the ensembles are made of
            load(server, name)
        said = load_all(server, names)
    report = check_repository(configured)
    differ = {
        name: (said[name], [f.message for f in report.findings if f.model == name])
        for name in names
        if said[name][0] != report.loads(name)
    }
    assert differ == {}
    loaded = sum(loads for loads, _ in said.values())
    assert len(names) >= 60
    assert 30 < loaded < len(names) - 30


@pytest.mark.parametrize("name", sorted(CRASHING))
def test_it_refuses_what_can_end_the_server(configured, backends, tmp_path, name):
    assert not check_repository(configured).loads(name)
    with serving(
        command(configured), backends, tmp_path / "empty", wait_ready=False, patience=0.5
    ) as server:
        try:
            loaded, _ = load(server, name, seconds=5)
        except (OSError, HTTPException):  # it is gone, or hangs over its own stack trace
            loaded = False
        assert not loaded


def test_the_schema_is_the_clients_own():
    """Names, types, repetition and groups of every field, as Triton's client has them."""
    theirs = subprocess.run(
        [str(PYTHON), describe_schema.__file__], capture_output=True, text=True, check=True
    ).stdout
    ours = describe_schema.describe(new_config().DESCRIPTOR)
    assert json.loads(json.dumps(ours)) == json.loads(theirs)
