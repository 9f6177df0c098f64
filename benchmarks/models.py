"""Members to measure with: random weights, real shapes."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from toolkit.nn import SparseMoE

__all__ = ["encoder", "mlp", "sparse_layer"]


def mlp(inputs: int, width: int, depth: int, classes: int) -> nn.Module:
    """``depth`` hidden layers with ReLU; ``float32[batch, inputs]`` to ``[batch, classes]``."""
    widths = [inputs, *[width] * depth, classes]
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Pre-norm self-attention and a four times wider feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, sequence, width]`` to the same shape."""
        parts = self.project(self.norms[0](x)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.merge(mixed.transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.norms[1](x))


class Encoder(nn.Module):
    """Embedding, blocks, mean over the sequence, a linear head."""

    def __init__(self, vocabulary: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(width, width // 64) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``int64[batch, sequence]`` to logits ``float32[batch, classes]``."""
        return self.head(self.blocks(self.embedding(input_ids)).mean(dim=1))


def encoder(vocabulary: int, width: int, depth: int, classes: int) -> nn.Module:
    """A transformer encoder with a classification head; width is a multiple of 64."""
    return Encoder(vocabulary, width, depth, classes)


def sparse_layer(*, width: int, hidden: int, experts: int, k: int) -> nn.Module:
    """Gated SiLU experts without biases behind a softmax gate that prefers some tokens."""
    layer = SparseMoE(
        width, hidden, experts=experts, k=k, activation=functional.silu, gated=True, bias=False,
        noise=False,
    )  # fmt: skip
    nn.init.normal_(layer.gate, std=width**-0.5)
    return layer
