"""Weights that a plan makes for itself, in a folder that lives as long as their source."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from toolkit.sources import Source

__all__ = ["in_scratch"]

_S = TypeVar("_S", bound=Source)


def in_scratch(make: Callable[[Path], _S]) -> _S:
    """Call ``make`` with a new folder; it goes when the source does, or at once on any error."""
    folder = Path(tempfile.mkdtemp(prefix="toolkit-"))
    try:
        source = make(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    return source
