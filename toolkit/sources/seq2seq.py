"""Encoder-decoder models as two graphs, with the caches of both attentions between them.

The encoder graph reads a source and gives keys and values of every decoder layer's
cross-attention, ``cross_key_values.{layer}.key`` and ``.value`` of shape [batch, heads, source,
size]. The decoder graph takes them back at every step, so nothing of the source is computed twice;
its own caches are those of ``toolkit.sources.cached``.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.caches import CROSS, PAST, PRESENT
from toolkit.errors import CheckpointError
from toolkit.sources.heads import Head

__all__ = ["CrossCaches", "DecoderLogits", "Part", "decoder_start", "part_inputs", "part_outputs"]

Part: TypeAlias = Literal["encoder", "decoder"]


def part_inputs(config: Any, part: Part) -> tuple[TensorSpec, ...]:
    """The inputs, in order.

    Encoder: ``input_ids`` and ``attention_mask``, int64 [batch, source]. Decoder:
    ``decoder_input_ids`` int64 [batch, sequence], the source's ``attention_mask``, key and value of
    each layer's past [batch, heads, past_sequence, size] and of its cross-attention [batch, heads,
    source, size]. Rows of a batch begin together, so nothing that is decoded is padding.
    """
    source, high = ("batch", "source"), config.vocab_size
    mask = TensorSpec("attention_mask", "int64", source, low=0, high=2, role="mask")
    if part == "encoder":
        return (TensorSpec("input_ids", "int64", source, low=0, high=high), mask)
    heads, size = _heads(config)
    tails = _tails(config)
    past, cross = ("batch", heads, "past_sequence", size), ("batch", heads, "source", size)
    return (
        TensorSpec("decoder_input_ids", "int64", ("batch", "sequence"), low=0, high=high),
        mask,
        *(TensorSpec(PAST + tail, "float32", past) for tail in tails),
        *(TensorSpec(CROSS + tail, "float32", cross) for tail in tails),
    )


def part_outputs(config: Any, part: Part) -> tuple[str, ...]:
    """Cross caches of each layer, or ``logits`` and the past of each layer with what is new."""
    if part == "encoder":
        return tuple(CROSS + tail for tail in _tails(config))
    return ("logits", *(PRESENT + tail for tail in _tails(config)))


def decoder_start(config: Any) -> int | None:
    """The token that decoding starts with; None where the configuration does not say."""
    found = getattr(config, "decoder_start_token_id", None)
    return None if found is None else int(found)


def _first(config: Any, *names: str) -> int:
    for name in names:
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    raise CheckpointError(
        f"config.json of a {config.model_type} does not say {names[0]}",
        hint="encoder-decoder models with the layout of T5, BART or Marian can be used",
    )


def _heads(config: Any) -> tuple[int, int]:
    heads = _first(config, "decoder_attention_heads", "num_heads")
    size = getattr(config, "d_kv", None) or _first(config, "d_model", "hidden_size") // heads
    return heads, size


def _tails(config: Any) -> list[str]:
    layers = _first(config, "decoder_layers", "num_decoder_layers", "num_layers")
    return [f"{layer}.{part}" for layer, part in product(range(layers), ("key", "value"))]


class CrossCaches(Head):
    """Returns key and value of every decoder layer's cross-attention [batch, heads, source, size].

    They depend on the source alone. The decoder's own code computes them, from one token that has
    no say in them; what else that computes is no part of the exported graph.
    """

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the encoder and the decoder's projections of what it gives."""
        from transformers import DynamicCache, EncoderDecoderCache  # noqa: PLC0415  (an extra)

        cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.model(
            **inputs,
            decoder_input_ids=torch.zeros_like(inputs["input_ids"][:, :1]),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        layers = cache.cross_attention_cache.layers
        return tuple(part for layer in layers for part in (layer.keys, layer.values))


class DecoderLogits(Head):
    """Returns ``(logits [batch, sequence, vocabulary], key and value of each layer's past)``."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(model, names)
        self._past = [name for name in names if name.startswith(PAST)]
        self._cross = [name for name in names if name.startswith(CROSS)]

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the decoder on the new positions."""
        from transformers import DynamicCache, EncoderDecoderCache  # noqa: PLC0415  (an extra)
        from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415

        own: Any = _filled(DynamicCache(), [inputs[name] for name in self._past])
        cross: Any = _filled(DynamicCache(), [inputs[name] for name in self._cross])
        cache = EncoderDecoderCache(own, cross)
        cache.is_updated = dict.fromkeys(range(len(cross.layers)), True)
        key = inputs[self._cross[0]]
        config: Any = self.model.config
        # Nobody reads what the encoder said; only how many positions it has.
        hidden = key.new_zeros(key.shape[0], key.shape[2], config.hidden_size)
        found = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=inputs["decoder_input_ids"],
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        caches = (part for layer in own.layers for part in (layer.keys, layer.values))
        return (found.logits, *caches)


def _filled(cache: Any, parts: list[torch.Tensor]) -> Any:
    for layer, at in enumerate(range(0, len(parts), 2)):
        cache.update(parts[at], parts[at + 1], layer)
    return cache
