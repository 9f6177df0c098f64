"""Models of transformers that remember what they have read while a text grows.

A search or a sample adds one token to every text at a time. With key-value caches the models read
that token alone. Other models, such as gates and factories, read the whole text again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Growing", "Memory", "Remembering", "Remembers", "memory_of"]

_IDS, _MASK, _SPOKEN = "input_ids", "attention_mask", "decoder_input_ids"
# Between logits with and without caches, in units of their standard deviation.
_CLOSE = 1e-2


class Memory:
    """One model and its caches; rows are texts of one length without padding before their end.

    Whether caches give what reading everything gives is tried at the first token that is read
    alone; where they do not, the model reads whole texts from then on.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._two = bool(model.config.is_encoder_decoder)
        self._trusted: bool | None = None
        self.forget()

    def forget(self) -> None:
        """Begin with other texts."""
        self._read = 0
        self._cache: Any = None
        self._encoded: Any = None

    def reorder(self, of: Tensor) -> None:
        """Keep the texts of these numbers, int64 [R], in this order."""
        if self._cache is not None:
            self._cache.reorder_cache(of)
        if self._encoded is not None:
            self._encoded = self._encoded[of]

    def __call__(self, feeds: Mapping[str, Tensor]) -> Tensor:
        """Logits [R, n, V] of the n positions that were not read before."""
        ids = feeds[_SPOKEN if self._two else _IDS]
        new = ids.shape[1] - self._read
        if self._trusted is False:
            found = self._whole(feeds)[:, -new:]
        else:
            found = self._step(feeds, ids[:, self._read :])
            if self._read and self._trusted is None:
                whole = self._whole(feeds)[:, -new:]
                self._trusted = bool((found - whole).abs().max() <= _CLOSE * whole.std())
                found = whole
        self._read = ids.shape[1]
        return found

    def _whole(self, feeds: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self._model(**feeds, use_cache=False, return_dict=True).logits
        return logits

    def _step(self, feeds: Mapping[str, Tensor], new: Tensor) -> Tensor:
        from transformers import DynamicCache, EncoderDecoderCache  # noqa: PLC0415  (an extra)
        from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415

        logits: Tensor
        if not self._two:
            if self._cache is None:
                self._cache = DynamicCache(config=self._model.config)
            given = {_IDS: new, _MASK: feeds[_MASK], "past_key_values": self._cache}
            logits = self._model(**given, use_cache=True, return_dict=True).logits
            return logits
        if self._cache is None:
            # without a configuration, which of some models counts the encoder's layers
            self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            encoder = self._model.get_encoder()
            read = {_IDS: feeds[_IDS], _MASK: feeds[_MASK]}
            self._encoded = encoder(**read, return_dict=True).last_hidden_state
        logits = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
            attention_mask=feeds[_MASK],
            decoder_input_ids=new,
            past_key_values=self._cache,
            use_cache=True,
            return_dict=True,
        ).logits
        return logits


def memory_of(model: nn.Module) -> Memory | None:
    """A memory for a language model of transformers that has key-value caches; None for others."""
    known = hasattr(model, "generate") and hasattr(model, "config")
    if not known or getattr(model, "_is_stateful", False):
        return None
    return Memory(model)


class Remembers(Protocol):
    """What keeps something of each text."""

    def forget(self) -> None:
        """Begin with other texts."""

    def reorder(self, of: Tensor) -> None:
        """Keep the texts of these numbers, int64 [R], in this order."""


class Growing:
    """Counts the positions of texts that were there before."""

    def __init__(self) -> None:
        self._read = 0

    def forget(self) -> None:
        """Begin with other texts."""
        self._read = 0

    def reorder(self, of: Tensor) -> None:
        """Nothing to do: all texts are of one length."""

    def new(self, ids: Tensor) -> int:
        """How many positions of these texts [R, L] are new; from then on they are not."""
        before, self._read = self._read, ids.shape[1]
        return self._read - before


class Remembering:
    """What says what comes next, and knows when texts begin, change places or end."""

    def __init__(
        self, speak: Callable[[Mapping[str, Tensor]], Tensor], memories: Sequence[Remembers]
    ) -> None:
        """Take both over.

        Args:
            speak: Gives logits [R, n, V] of the last n positions of the texts, n from 1 to all.
            memories: What it keeps of the texts.
        """
        self._speak = speak
        self._memories = tuple(memories)

    def __call__(self, feeds: Mapping[str, Tensor]) -> Tensor:
        """Logits [R, n, V] of the last n positions."""
        with torch.no_grad():
            return self._speak(feeds)

    def forget(self) -> None:
        """Begin with other texts."""
        for memory in self._memories:
            memory.forget()

    def reorder(self, of: Tensor) -> None:
        """Keep the texts of these numbers, int64 [R], in this order."""
        for memory in self._memories:
            memory.reorder(of)
