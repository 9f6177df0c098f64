"""Bundles of several kinds, packaged into one repository, and a real server on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.triton.models import by_hand, decoder, digits, encoder, experts
from tests.triton.server import Server, build_native, make_backends, serving
from toolkit.cli import main


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: an ensemble, an encoder of texts, a decoder with caches, one with experts."""
    makers = (digits, encoder, experts, decoder)
    return {make.__name__: make(tmp_path_factory.mktemp(make.__name__)) for make in makers}


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the stand-in that refuses what the real backend refuses."""
    return make_backends(tmp_path_factory.mktemp("server") / "backends")


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the stand-in that is a library, as the real backend is."""
    folder = tmp_path_factory.mktemp("native")
    library, missing = build_native(folder / "library")
    if library is None:
        pytest.skip(f"this machine cannot build a backend: {missing}")
    return make_backends(folder / "backends", library)


def package(*words: str | Path) -> None:
    """The command, as a user gives it."""
    with pytest.raises(SystemExit) as stopped:
        main(["package", *map(str, words)])
    assert stopped.value.code == 0


@pytest.fixture(scope="session")
def repository(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every bundle, in every way it can be served; digits twice, and with a queue that waits."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    package(bundles["digits"], "-o", folder)
    package(bundles["digits"], "-o", folder)
    package(bundles["digits"], "-o", folder, "--unfused", "--allow-code")
    package(bundles["digits"], "-o", folder, "--name", "waiting", "--queue-delay", "200000")
    package(bundles["encoder"], "-o", folder, "--pipeline")
    package(
        bundles["encoder"], "-o", folder, "--pipeline", "--name", "slow", "--queue-delay", "200000"
    )
    for name, output in (("speaker", "logits"), ("embedder", "sentence_embedding")):
        made = by_hand(folder.parent / "by_hand" / name, output)
        package(made, "-o", folder, "--pipeline")
    package(bundles["experts"], "-o", folder, "--state", "client")
    package(bundles["decoder"], "-o", folder)
    package(bundles["decoder"], "-o", folder, "--name", "plain_decoder", "--state", "client")
    return folder


@pytest.fixture(scope="session")
def server(
    repository: Path, native: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Started by the repository's own script."""
    folder = tmp_path_factory.mktemp("serving") / "empty"
    with serving([repository / "serve.sh"], native, folder) as running:
        yield running
