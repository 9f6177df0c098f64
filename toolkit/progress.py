"""How long work tells what it is doing: one callable, so that stages need no terminal library."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["DETAIL", "Progress", "silent"]

DETAIL = " · "

# (what is being done, steps done, steps in all); a total of 0 means the number is not known.
# What stands behind DETAIL in the first changes while the thing goes on: how fast, how long yet.
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
