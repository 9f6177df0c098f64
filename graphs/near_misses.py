"""What almost matched: said by passes, and by what they look for."""

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
