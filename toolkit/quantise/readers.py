"""Calibration data as quantisers read it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import graphs

if TYPE_CHECKING:
    from toolkit.runtime import Feeds

__all__ = ["Reader", "Rewinding"]


class Reader:
    """Feeds as ONNX Runtime's calibration reads them; only those the graph declares."""

    def __init__(self, feeds: Iterable[Feeds], graph: Path) -> None:
        self._names = {value.name for value in graphs.describe(graph).inputs}
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        """None behind the last."""
        for feeds in self._feeds:
            return {name: array for name, array in feeds.items() if name in self._names}
        return None


class Rewinding:
    """The same as ModelOpt reads them, more than once."""

    def __init__(self, reader: Reader) -> None:
        self._every = list(iter(reader.get_next, None))
        self.rewind()

    def rewind(self) -> None:
        """Begin again."""
        self._left = iter(self._every)

    def get_next(self) -> dict[str, Any] | None:
        """None behind the last."""
        return next(self._left, None)

    def get_first(self) -> dict[str, Any]:
        """The largest: products that have one row in it are left in floats."""
        return max(self._every, key=lambda feeds: sum(array.size for array in feeds.values()))
