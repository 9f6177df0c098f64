"""The host library, compiled once per worker."""

from __future__ import annotations

import ctypes

import pytest

from tests.plugins import host


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels' code for the host."""
    return host.library(tmp_path_factory.mktemp("host"))
