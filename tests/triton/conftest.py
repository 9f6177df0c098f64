"""Bundles of several kinds, packaged into one repository, and a real server on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.moe_models import write_tiny
from tests.triton.server import Server, make_backends, serving
from tests.workshop import write_huggingface
from toolkit.package import PackageOptions, package_triton
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

SAMPLES = Path(__file__).resolve().parents[2] / "samples"

ENCODER = """
model: {checkpoint: bert}
shapes: {batch: [1, 2, 4], sequence: [1, 5, 12]}
parity: {cases: 1}
"""
EXPERTS = """
model: {checkpoint: mixtral, cache: true}
shapes: {batch: [1, 2, 4], sequence: [1, 3, 8], past_sequence: [0, 4, 16]}
export: {experts: rows}
parity: {cases: 1}
"""


def bundle_of(folder: Path, text: str, name: str) -> Path:
    (folder / "recipe.yaml").write_text(text)
    recipe = load_recipe(folder / "recipe.yaml", allow_code=True)
    export_recipe(recipe, folder, folder / name)
    return folder / name


def digits(folder: Path) -> Path:
    """The demo's ensemble, trained for a moment."""
    pytest.importorskip("sklearn", reason="the samples need scikit-learn")
    weights = folder / "weights" / "digits"
    train = [sys.executable, SAMPLES / "digits_train.py", "--epochs", "2", "--out", weights]
    subprocess.run([str(word) for word in train], check=True, capture_output=True)
    shutil.copy(SAMPLES / "recipes" / "digits_models.py", folder)
    text = (SAMPLES / "recipes" / "digits_ensemble.yaml").read_text()
    return bundle_of(folder, text.replace("target: tensorrt-rtx", "parity: {cases: 1}"), "digits")


def encoder(folder: Path) -> Path:
    write_huggingface(folder / "bert", "bert")
    return bundle_of(folder, ENCODER, "encoder")


def experts(folder: Path) -> Path:
    write_tiny(folder / "mixtral", "mixtral")
    return bundle_of(folder, EXPERTS, "experts")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: an ensemble, an encoder, and a decoder with caches and sparse experts."""
    makers = (digits, encoder, experts)
    return {make.__name__: make(tmp_path_factory.mktemp(make.__name__)) for make in makers}


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backends(tmp_path_factory.mktemp("server") / "backends")


@pytest.fixture(scope="session")
def repository(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every bundle as a model; digits twice, and once more with a queue that waits."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    for bundle in bundles.values():
        package_triton(bundle, folder)
    package_triton(bundles["digits"], folder)
    package_triton(bundles["digits"], folder, PackageOptions(name="waiting", queue_delay=200_000))
    return folder


@pytest.fixture(scope="session")
def server(
    repository: Path, backends: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Started by the repository's own script."""
    folder = tmp_path_factory.mktemp("serving") / "empty"
    with serving([repository / "serve.sh"], backends, folder) as running:
        yield running
