"""How long work tells what it is doing: one callable, so that stages need no terminal library."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

# (what is being done, steps done, steps in all); a total of 0 means the number is not known.
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
