"""Causal models whose key-value caches are inputs and outputs, for decoding step by step.

Names and layout are those of Hugging Face's ONNX models: ``past_key_values.{layer}.key`` and
``.value`` of shape [batch, kv_heads, past_sequence, head_dim] in, ``present.{layer}.…`` with the
new positions appended out. An empty past is a prefill.
"""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.caches import PAST, PRESENT
from toolkit.sources.heads import Head

__all__ = ["CachedLogits", "cached_inputs", "cached_outputs"]

_TOTAL = "past_sequence + sequence"


def cached_inputs(config: Any) -> tuple[TensorSpec, ...]:
    """The inputs, in order.

    ``input_ids`` and ``position_ids`` int64 [batch, sequence], ``attention_mask`` int64 [batch,
    past_sequence + sequence], then key and value of each layer.
    """
    table = getattr(config, "max_position_embeddings", None) or 2**31
    new, (heads, *sizes) = ("batch", "sequence"), _cache_of(config)
    return (
        TensorSpec("input_ids", "int64", new, low=0, high=config.vocab_size),
        TensorSpec("attention_mask", "int64", ("batch", _TOTAL), low=0, high=2, role="mask"),
        TensorSpec("position_ids", "int64", new, low=0, high=table),
        *(
            TensorSpec(PAST + tail, "float32", ("batch", heads, "past_sequence", size))
            for tail, size in zip(_tails(config), cycle(sizes), strict=False)
        ),
    )


def cached_outputs(config: Any) -> tuple[str, ...]:
    """``logits``, then key and value of each layer."""
    return ("logits", *(PRESENT + tail for tail in _tails(config)))


def _cache_of(config: Any) -> tuple[int, int, int]:
    """Heads, and the size of a key and of a value in a head.

    Latent attention (DeepSeek-V2, arXiv:2405.04434) keeps what keys and values are made of: one
    head, a latent vector in place of the key, and the rotated part in place of the value.
    """
    latent = getattr(config, "kv_lora_rank", None)
    if latent:
        return 1, latent, config.qk_rope_head_dim
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    # JetMoE's width of a head is kv_channels.
    size = getattr(config, "head_dim", None) or getattr(config, "kv_channels", None)
    size = size or config.hidden_size // config.num_attention_heads
    return heads, size, size


def _tails(config: Any) -> list[str]:
    return [f"{i}.{part}" for i, part in product(range(config.num_hidden_layers), ("key", "value"))]


class CachedLogits(Head):
    """Returns ``(logits [batch, sequence, vocabulary], key and value of each layer)``."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(model, names)
        self._past = [name for name in names if name.startswith(PAST)]

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on the new positions."""
        from transformers import DynamicCache  # noqa: PLC0415  (an optional extra)

        # Without a configuration every layer keeps all positions, as the masks here expect.
        cache: Any = DynamicCache()
        for layer, at in enumerate(range(0, len(self._past), 2)):
            key, value = (inputs[name] for name in self._past[at : at + 2])
            cache.update(key, value, layer)
        plain = {name: value for name, value in inputs.items() if not name.startswith(PAST)}
        found = self.model(**plain, past_key_values=cache, use_cache=True, return_dict=True)
        caches = (part for layer in cache.layers for part in (layer.keys, layer.values))
        return (found.logits, *caches)
