"""The three classifiers of the digits samples, wide enough that weights are most of a file."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["attention", "cnn", "mlp"]


class _Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 64, kernel_size=3, padding=1)
        self.second = nn.Conv2d(64, 128, kernel_size=3, padding=1)
        self.third = nn.Linear(128 * 2 * 2, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = functional.max_pool2d(torch.relu(self.first(image)), 2)
        hidden = functional.max_pool2d(torch.relu(self.second(hidden)), 2)
        return self.head(torch.relu(self.third(hidden.flatten(1))))


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 512)
        self.second = nn.Linear(512, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(image.flatten(1)))
        return self.head(torch.relu(self.second(hidden)))


class _Attention(nn.Module):
    """One pre-norm block over the eight rows of the image."""

    def __init__(self, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.attend_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.head = nn.Linear(8 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = self.embed(image.squeeze(1)) + self.position
        rows = rows + self._attend(self.attend_norm(rows))
        rows = rows + self.mix(self.mix_norm(rows))
        return self.head(rows.flatten(1))

    def _attend(self, rows: torch.Tensor) -> torch.Tensor:
        split = self.query_key_value(rows).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(query, key, value)
        return self.project(heads.transpose(1, 2).flatten(2))


def cnn() -> nn.Module:
    """Untrained; ``image`` [batch, 1, 8, 8] to logits [batch, 10], as all three."""
    return _Cnn()


def mlp() -> nn.Module:
    """Untrained."""
    return _Mlp()


def attention() -> nn.Module:
    """Untrained."""
    return _Attention()
