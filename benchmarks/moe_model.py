"""A small mixture-of-experts decoder in plain PyTorch, for measuring.

The block is that of Mixtral (Jiang et al. 2024): softmax over the router's ``top_k`` logits, and
each token's output is the weighted sum of its experts. Every expert is a module of its own.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["moe_decoder"]


class Expert(nn.Module):
    """Gated linear unit with SiLU (Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """Routes each token to ``top_k`` of the experts; the others have weight 0."""

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList([Expert(width) for _ in range(experts)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probabilities = torch.softmax(self.router(x), dim=-1)
        kept, chosen = torch.topk(probabilities, self.top_k, dim=-1)
        kept = kept / kept.sum(dim=-1, keepdim=True)
        weights = torch.zeros_like(probabilities).scatter(-1, chosen, kept)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (weights.unsqueeze(-1) * outputs).sum(dim=-2)


class Block(nn.Module):
    """Pre-norm causal attention and a mixture."""

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.heads = 4
        self.attend_norm, self.mix_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mixture = Mixture(width, experts, top_k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = self.query_key_value(self.attend_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
        mixed = torch.softmax(scores, dim=-1) @ value
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.mixture(self.mix_norm(x))


class MoeDecoder(nn.Module):
    """Embeddings of tokens and positions, blocks, norm, a linear head."""

    def __init__(self, vocabulary: int, width: int, layers: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(32, width)
        self.blocks = nn.ModuleList([Block(width, experts, top_k) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def moe_decoder(vocabulary: int, width: int, layers: int, experts: int, top_k: int) -> MoeDecoder:
    """Logits [batch, sequence, vocabulary] of ``input_ids`` [batch, sequence], 32 at the most."""
    return MoeDecoder(vocabulary, width, layers, experts, top_k)
