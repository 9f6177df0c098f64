"""Names of key-value caches, which are Hugging Face's: ``past_key_values.…`` in, ``present.…`` out.

What a decoder keeps of its source, keys and values of cross-attention, is called
``cross_key_values.…``: an output of the encoder, an input of the decoder at every step.

In an ensemble a cache belongs to one member alone, so the member's path stands in its name:
``past_key_values.{member}.{layer}.key``. The path is the names from the outermost ensemble's
member to the model's own, joined by dots; the root's own name is no part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

__all__ = ["CROSS", "PAST", "PRESENT", "cache_names", "is_cache", "of_member", "present_of"]

PAST, PRESENT, CROSS = "past_key_values.", "present.", "cross_key_values."


def is_cache(name: str) -> bool:
    """Whether an input or output of this name belongs to one member alone."""
    return name.startswith((PAST, PRESENT, CROSS))


def present_of(past: str) -> str:
    """The output that continues the input ``past``."""
    return PRESENT + past.removeprefix(PAST)


def cache_names(inputs: Iterable[str], outputs: Collection[str]) -> dict[str, str]:
    """Inputs that are caches with the outputs that continue them; others are left out."""
    pairs = ((name, present_of(name)) for name in inputs if name.startswith(PAST))
    return {past: present for past, present in pairs if present in outputs}


def of_member(name: str, path: Sequence[str]) -> str:
    """A cache's name (of any kind) in the ensemble that has the model at ``path``."""
    start = next(kind for kind in (PAST, PRESENT, CROSS) if name.startswith(kind))
    return start + ".".join((*path, name.removeprefix(start)))
