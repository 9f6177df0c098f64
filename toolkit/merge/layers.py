"""Layers by name: any architecture whose tensors are numbered, without a list of architectures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.errors import MergeError

__all__ = ["LayerName", "depth", "is_before_layers", "main_stack", "split", "stack_sizes"]

_STACKS = ("layers", "h", "blocks", "block", "layer", "decoder_layers")
_FRONT = ("embed", "wte", "wpe", "tok_embeddings", "patch_embedding", "rotary")


@dataclass(frozen=True)
class LayerName:
    """A tensor's name taken apart: ``stack.index.rest``."""

    stack: str
    index: int
    rest: str

    def at(self, index: int) -> str:
        """The same tensor of another layer."""
        return f"{self.stack}.{index}.{self.rest}" if self.stack else f"{index}.{self.rest}"


def split(name: str) -> LayerName | None:
    """Take a name apart; None for one outside of layers.

    The first part that is a number counts the layers; experts and the like come after it.
    """
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if part.isascii() and part.isdecimal() and len(part) < 8:
            return LayerName(".".join(parts[:place]), int(part), ".".join(parts[place + 1 :]))
    return None


def stack_sizes(names: Iterable[str]) -> dict[str, int]:
    """Layers per stack: one more than the largest number."""
    sizes: dict[str, int] = {}
    for found in filter(None, map(split, names)):
        sizes[found.stack] = max(sizes.get(found.stack, 0), found.index + 1)
    return sizes


def depth(index: int, count: int) -> float:
    """Where gradients are read: 0 at the first of several layers, 1 at the last and at an only one.

    Args:
        index: The layer's place in its slice.
        count: Layers in the slice.
    """
    return index / (count - 1) if count > 1 else 1.0


def main_stack(sizes: Mapping[str, int], model: str) -> str:
    """The stack that slices count.

    Raises:
        MergeError: If a model has none, or several.
    """
    found = [stack for stack in sizes if stack.rpartition(".")[2] in _STACKS]
    if len(found) != 1:
        named = ", ".join(found) or "none"
        raise MergeError(
            f"{model} cannot be sliced: one stack of layers is wanted, and it has {named}",
            hint="merge whole models with models: instead of slices:",
        )
    return found[0]


def is_before_layers(name: str) -> bool:
    """Whether a tensor outside of layers stands before them: embeddings do, norms and heads not."""
    return any(part in name for part in _FRONT)
