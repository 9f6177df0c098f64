"""Ranges of versions, and the two builders they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL_RTX", "ALL_TENSORRT", "SUPPORTED", "TITLES", "Limits", "Span", "Target", "words"]

Target = Literal["tensorrt", "tensorrt-rtx"]

TITLES: Mapping[Target, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class Span:
    """The versions from ``since`` on and before ``before``.

    Attributes:
        since: Such as ``10.8``, inclusive.
        before: Likewise, exclusive.
    """

    since: str
    before: str

    def __contains__(self, version: str) -> bool:
        return _parts(self.since) <= _parts(version) < _parts(self.before)

    def covers(self, other: Span) -> bool:
        """Whether every version of ``other`` is one of these."""
        first = _parts(self.since) <= _parts(other.since)
        return first and _parts(other.before) <= _parts(self.before)

    def meets(self, other: Span) -> bool:
        """Whether there is a version in both."""
        first = _parts(self.since) < _parts(other.before)
        return first and _parts(other.since) < _parts(self.before)

    def __str__(self) -> str:
        return f"{self.since} to before {self.before}"


@dataclass(frozen=True)
class Limits:
    """Where something is refused.

    Attributes:
        tensorrt: Versions of TensorRT that refuse it; None is none.
        rtx: Likewise of TensorRT-RTX.
        source: Who says so.
    """

    tensorrt: Span | None
    rtx: Span | None
    source: str

    def of(self, target: Target) -> Span | None:
        """The versions of one builder."""
        return self.tensorrt if target == "tensorrt" else self.rtx


ALL_TENSORRT = Span("10", "12")
ALL_RTX = Span("1", "2")

SUPPORTED: Mapping[Target, Span] = {
    "tensorrt": Span("10.8", "12"),
    "tensorrt-rtx": ALL_RTX,
}
"""The versions that this project builds engines with."""


def _parts(version: str) -> tuple[int, ...]:
    # 10.8.0 is not later than 10.8, so trailing zeros do not count.
    parts = [int(part) for part in re.findall(r"\d+", version)]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def words(text: str) -> frozenset[str]:
    """Names that are written with spaces between them."""
    return frozenset(text.split())
