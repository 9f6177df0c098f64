"""Gates that need no code of one's own: small modules that ``toolkit fit-gate`` trains.

A recipe names them as factories, ``toolkit.gates:features`` and so on, without ``--allow-code``.
Each starts at the constant weights that were fitted to the same data, and gives scores whose
softmax (or softplus) are the weights.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Features", "LastToken", "Tokens", "features", "last_token", "tokens"]


class _Gate(nn.Module):
    """What all have in common: a linear layer at the end."""

    head: nn.Linear

    def start_at(self, scores: torch.Tensor) -> None:
        """Give ``scores`` [members] whatever the input is."""
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(scores)


class Features(_Gate):
    """Scores [batch, members] from one array of features."""

    def __init__(self, inputs: int, members: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or inputs, members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [batch, ...] with ``inputs`` numbers in each row."""
        scores: torch.Tensor = self.head(self.body(x.flatten(1)))
        return scores


class Tokens(_Gate):
    """Scores [batch, sequence, members] from a token and the mean of those before it."""

    def __init__(self, vocabulary: int, members: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(2 * width, members)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Both int64 [batch, sequence]; a position sees itself and what stands left of it."""
        token = self.embedding(input_ids)
        mask = attention_mask.unsqueeze(-1).to(token.dtype)
        seen = (token * mask).cumsum(dim=1) / mask.cumsum(dim=1).clamp(min=1.0)
        scores: torch.Tensor = self.head(torch.cat([token, seen], dim=-1))
        return scores


class LastToken(_Gate):
    """Scores [batch, sequence, members] from each token alone, so that no cache is needed."""

    def __init__(self, vocabulary: int, members: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, members)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``input_ids`` int64 [batch, sequence]."""
        scores: torch.Tensor = self.head(self.embedding(input_ids))
        return scores


def features(inputs: int, members: int, hidden: int = 0) -> Features:
    """A linear gate over the features ``x``, or one with a hidden layer of that width."""
    return Features(inputs, members, hidden)


def tokens(vocabulary: int, members: int, width: int = 32) -> Tokens:
    """A gate for texts: every position has its own weights."""
    return Tokens(vocabulary, members, width)


def last_token(vocabulary: int, members: int, width: int = 32) -> LastToken:
    """A gate for texts that are decoded with a cache: the weights depend on the last token."""
    return LastToken(vocabulary, members, width)
