"""Hugging Face models as training sees them: whole, and without caches.

An encoder-decoder model is two graphs where it is exported and one model where it learns or
teaches: it takes a source and what the decoder is given, and says what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.sources import HuggingFaceSource, Source
from toolkit.sources.heads import Head

__all__ = ["DecoderSource", "SourceToLogits", "whole"]

_BOTH = ("batch", "sequence")


class SourceToLogits(Head):
    """Returns ``(logits [batch, sequence, vocabulary],)`` of an encoder-decoder model."""

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Read ``input_ids`` under ``attention_mask`` and speak after ``decoder_input_ids``."""
        return (self.model(**inputs, use_cache=False, return_dict=True).logits,)


@dataclass(frozen=True)
class DecoderSource:
    """An encoder-decoder model as one source.

    Attributes:
        origin: Either part of it.
    """

    origin: HuggingFaceSource

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.origin.name

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"{self.origin.description}, whole"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the model is made from."""
        return self.origin.files

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Source and mask, int64 [batch, source], and ``decoder_input_ids`` [batch, sequence]."""
        encoder = replace(self.origin, part="encoder").inputs
        high = self.origin.config.vocab_size
        return (*encoder, TensorSpec("decoder_input_ids", "int64", _BOTH, low=0, high=high))

    @property
    def outputs(self) -> tuple[str, ...]:
        """``logits``."""
        return ("logits",)

    def load(self, dtype: str = "float32") -> nn.Module:
        """Load in evaluation mode.

        Raises:
            CheckpointError: If the folder cannot be used.
        """
        half = replace(self.origin, part="decoder").load(dtype)
        assert isinstance(half, Head)
        return SourceToLogits(half.model, tuple(spec.name for spec in self.inputs))


def whole(source: Source) -> Source:
    """The source without parts and caches, as it learns and teaches."""
    if not isinstance(source, HuggingFaceSource):
        return source
    if source.encoder_decoder:
        return DecoderSource(source)
    return replace(source, cache=False) if source.cache else source
