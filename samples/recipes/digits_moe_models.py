"""A digit classifier whose middle layer has eight experts, two of them for any one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from toolkit.nn import SparseMoE

__all__ = ["Moe", "moe"]


class Moe(nn.Module):
    """A hidden layer, a sparse layer beside a skip connection, and a head."""

    def __init__(self, width: int = 32, hidden: int = 32, experts: int = 8, k: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(64, width)
        self.sparse = SparseMoE(
            width, hidden, experts=experts, k=k, activation=functional.silu, gated=True
        )
        self.head = nn.Linear(width, 10)

    def tokens(self, image: torch.Tensor) -> torch.Tensor:
        """What the gate sees: one token per image, [batch, width]."""
        return torch.tanh(self.embed(image.flatten(1)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``image`` float32 [batch, 1, 8, 8]; gives logits [batch, 10]."""
        tokens = self.tokens(image)
        return self.head(tokens + self.sparse(tokens))


def moe() -> Moe:
    """An untrained classifier."""
    return Moe()
