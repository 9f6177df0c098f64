"""A smaller model that begins with some layers of a larger one (Sanh et al. 2019, DistilBERT)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from toolkit.errors import CheckpointError, RecipeError

__all__ = ["Layers"]

# Where configurations say how many layers there are; an encoder-decoder model has two.
_COUNTS = (
    ("encoder_layers", "decoder_layers"),
    ("num_layers", "num_decoder_layers"),
    ("num_hidden_layers",),
)
# The outermost list that layers stand in (a T5 has lists in its blocks), and the layer's number.
_LAYER = re.compile(r"^(?P<list>.*?\b(?:layers?|h|blocks?))\.(?P<number>\d+)\.")


@dataclass(frozen=True)
class Layers:
    """Which layers are kept; one of the three is given.

    Attributes:
        first: The first so many.
        every: Every n-th, beginning with the first.
        numbers: These, in order.
    """

    first: int | None = None
    every: int | None = None
    numbers: tuple[int, ...] = ()

    def kept(self, count: int) -> tuple[int, ...]:
        """The numbers of the layers that are kept, of ``count``.

        Raises:
            RecipeError: If there are not as many layers.
        """
        if self.first is not None:
            found = tuple(range(self.first))
        elif self.every is not None:
            found = tuple(range(0, count, self.every))
        else:
            found = self.numbers
        if not found or max(found) >= count:
            raise RecipeError(f"layers are to be kept up to {max(found, default=0)}, and the "
                              f"checkpoint has {count}, from 0 to {count - 1}")  # fmt: skip
        return found

    def configuration(self, config: Any) -> Any:
        """The configuration of the model with the kept layers only.

        Raises:
            CheckpointError: If it does not say how many layers there are.
        """
        smaller = deepcopy(config)
        for name in _names(config):
            count = int(getattr(config, name))
            kept = self.kept(count)
            for key, value in list(smaller.to_dict().items()):
                # such as layer_types, which say something of each
                if isinstance(value, list) and len(value) == count and hasattr(smaller, key):
                    setattr(smaller, key, [value[number] for number in kept])
            setattr(smaller, name, len(kept))
        return smaller

    def state(self, state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
        """The weights of the kept layers under their new numbers, and all that is in no layer."""
        counts = {int(getattr(config, name)) for name in _names(config)}
        sizes: dict[str, int] = {}
        for name in state:
            match = _LAYER.match(name)
            if match:
                size = int(match["number"]) + 1
                sizes[match["list"]] = max(sizes.get(match["list"], 0), size)
        found: dict[str, Tensor] = {}
        for name, tensor in state.items():
            match = _LAYER.match(name)
            if not match or sizes[match["list"]] not in counts:
                found[name] = tensor
                continue
            kept = self.kept(sizes[match["list"]])
            number = int(match["number"])
            if number in kept:
                start = f"{match['list']}.{kept.index(number)}."
                found[start + name[match.end() :]] = tensor
        return found


def _names(config: Any) -> tuple[str, ...]:
    two = bool(getattr(config, "is_encoder_decoder", False))
    for names in _COUNTS:
        if len(names) == 1 + two and all(_count(config, name) for name in names):
            return names
    raise CheckpointError(f"config.json of a {config.model_type} does not say how many layers")


def _count(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    return isinstance(value, int) and value > 0
