"""Names of key-value caches, which are Hugging Face's: ``past_key_values.…`` in, ``present.…`` out.

In an ensemble a cache belongs to one member alone, so the member's path stands in its name:
``past_key_values.{member}.{layer}.key``. The path is the names from the outermost ensemble's
member to the model's own, joined by dots; the root's own name is no part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

__all__ = ["PAST", "PRESENT", "cache_names", "of_member", "present_of"]

PAST, PRESENT = "past_key_values.", "present."


def present_of(past: str) -> str:
    """The output that continues the input ``past``."""
    return PRESENT + past.removeprefix(PAST)


def cache_names(inputs: Iterable[str], outputs: Collection[str]) -> dict[str, str]:
    """Inputs that are caches with the outputs that continue them; others are left out."""
    pairs = ((name, present_of(name)) for name in inputs if name.startswith(PAST))
    return {past: present for past, present in pairs if present in outputs}


def of_member(name: str, path: Sequence[str]) -> str:
    """A cache's name (either kind) in the ensemble that has the model at ``path``."""
    start = PAST if name.startswith(PAST) else PRESENT
    return start + ".".join((*path, name.removeprefix(start)))
