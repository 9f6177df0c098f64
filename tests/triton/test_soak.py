"""Models come and go under load, and no client notices."""

from __future__ import annotations

import pytest

from benchmarks.serving import load
from benchmarks.triton_soak import requests_of, soak, sustainable
from tests.triton.server import index, serving
from toolkit.package import PackageOptions, package_triton

pytestmark = pytest.mark.triton


def test_nothing_is_wrong_or_lost_while_models_are_added_replaced_and_removed(
    bundles, native, tmp_path
):
    repository = tmp_path / "models"
    package_triton(bundles["digits"], repository)
    package_triton(bundles["encoder"], repository)
    requests = requests_of(bundles["digits"], tmp_path)
    flags = ["--model-control-mode=explicit", "--load-model=digits"]
    with serving([repository / "serve.sh", *flags], native, tmp_path / "empty") as server:
        clients, _ = sustainable(server, "digits", requests, 0.4)
        found = soak(
            server, "digits", requests, concurrency=clients, seconds=6,
            add_version=lambda: package_triton(bundles["digits"], repository, PackageOptions()),
            other="encoder",
        )  # fmt: skip
        # What is not the answer to a request is seen to be none.
        assert load(server, "digits", requests.shifted(tmp_path), concurrency=1, seconds=0.3).wrong
        states = index(server)
    assert (found.load.wrong, found.load.lost, found.load.errors) == (0, 0, [])
    assert found.load.answers > 100
    assert (states[("digits", "2")], states[("digits", "1")]) == ("READY", "UNAVAILABLE")
    assert states[("encoder", "1")] == "UNAVAILABLE"
