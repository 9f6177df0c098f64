"""A model that reads and speaks another vocabulary than its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.wrapping import Wrapped

__all__ = ["Translated", "Translation"]


@dataclass(frozen=True)
class Translation:
    """From the ids of a shared vocabulary to a model's own.

    Attributes:
        ids: The model's input of token ids.
        logits: Its output with a logit for each of its own ids, along the last axis.
        reads: For each shared id, the own id that is read in its place.
        speaks: For each shared id, the own id whose logit it gets; -1 where there is none, and
            the logit is -inf.
    """

    ids: str
    logits: str
    reads: tuple[int, ...] = field(repr=False)
    speaks: tuple[int, ...] = field(repr=False)

    def read(self, feeds: Feeds) -> Feeds:
        """The feeds with the model's own ids."""
        shared = feeds[self.ids]
        return {**feeds, self.ids: np.array(self.reads, shared.dtype)[shared]}

    def speak(self, logits: Array) -> Array:
        """Logits [..., shared vocabulary] of the model's own [..., vocabulary]."""
        own: Any = logits
        speaks = np.array(self.speaks)
        found = np.full((*own.shape[:-1], len(speaks)), -np.inf, own.dtype)
        found[..., speaks >= 0] = own[..., speaks[speaks >= 0]]
        return found


class Translated(Wrapped):
    """Takes shared ids, gives shared logits; everything else is the runner's own."""

    def __init__(self, runner: Runner, translation: Translation) -> None:
        super().__init__(runner)
        self._translation = translation

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the model once."""
        found = self.inner(self._translation.read(feeds))
        logits = self._translation.logits
        return {**found, logits: self._translation.speak(found[logits])}
