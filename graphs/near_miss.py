"""What a rewrite says of a place that it left alone."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NearMiss"]


@dataclass(frozen=True)
class NearMiss:
    """A place that almost matched.

    Attributes:
        node: Name of the node or initializer.
        reason: Why it was left alone.
    """

    node: str
    reason: str
