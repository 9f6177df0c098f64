"""Three small classifiers of 8x8 digits that see an image in three different ways, and a student.

Each takes ``image``, float32 [batch, 1, 8, 8] with values in [0, 1], and returns logits
[batch, 10]. The recipes beside this file name the functions at the end, for example
``factory: "digits_models:cnn"``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Attention", "Cnn", "Mlp", "Slim", "attention", "cnn", "mlp", "slim"]


class Cnn(nn.Module):
    """Two convolutions: sees small neighbourhoods, wherever they are."""

    def __init__(self, first: int = 8, second: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, first, kernel_size=3, padding=1)
        self.second = nn.Conv2d(first, second, kernel_size=3, padding=1)
        self.head = nn.Linear(second * 2 * 2, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = functional.max_pool2d(torch.relu(self.first(image)), 2)  # [batch, first, 4, 4]
        hidden = functional.max_pool2d(torch.relu(self.second(hidden)), 2)  # [batch, second, 2, 2]
        return self.head(hidden.flatten(1))


class Mlp(nn.Module):
    """Two hidden layers: sees all 64 pixels at once, each in its place."""

    def __init__(self, first: int = 48, second: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(64, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(image.flatten(1)))
        return self.head(torch.relu(self.second(hidden)))


class Attention(nn.Module):
    """One pre-norm transformer block (Vaswani et al. 2017) over the 8 rows of the image."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
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
        rows = self.embed(image.squeeze(1)) + self.position  # [batch, 8, width]
        rows = rows + self._attend(self.attend_norm(rows))
        rows = rows + self.mix(self.mix_norm(rows))
        return self.head(rows.flatten(1))

    def _attend(self, rows: torch.Tensor) -> torch.Tensor:
        split = self.query_key_value(rows).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [batch, heads, 8, width / heads]
        heads = functional.scaled_dot_product_attention(query, key, value)
        return self.project(heads.transpose(1, 2).flatten(2))


class Slim(nn.Module):
    """One hidden layer: what the others are distilled into, a tenth of their size together."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(image.flatten(1))))


def cnn() -> Cnn:
    """An untrained convolutional network."""
    return Cnn()


def mlp() -> Mlp:
    """An untrained multilayer perceptron."""
    return Mlp()


def attention() -> Attention:
    """An untrained attention network."""
    return Attention()


def slim() -> Slim:
    """An untrained student."""
    return Slim()
