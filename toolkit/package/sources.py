"""The C++ sources of ``samples/cpp``, which come with the package."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources

__all__ = ["read_sources"]


def read_sources(names: Collection[str] | None = None) -> dict[str, str]:
    """Their texts by file name; None is all of them."""
    folder = resources.files("toolkit.package").joinpath("cpp")
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if names is None or entry.name in names
    }
