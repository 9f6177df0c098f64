"""The one error of this package."""

from __future__ import annotations

__all__ = ["GraphError"]


class GraphError(Exception):
    """A graph that cannot be read, combined, rewritten or written.

    Attributes:
        message: One line: what was found and what was wanted.
        hint: What to do about it, or the names that exist; empty when the message says it all.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
