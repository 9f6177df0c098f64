"""Thin modules that give Hugging Face models one calling convention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Head", "Pooling", "SentenceEmbedding", "TokenLogits", "pooled"]


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one sentence vector."""

    mode: str
    normalise: bool


class Head(nn.Module):
    """A model called by keyword with ``names`` and returning a tuple."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names


class TokenLogits(Head):
    """Returns ``(logits,)``; shape [batch, labels] or [batch, sequence, vocabulary or labels]."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], *, causal: bool) -> None:
        super().__init__(model, names)
        # Only models that can cache know the argument; without it they return caches as outputs.
        self.arguments: dict[str, bool] = {"use_cache": False} if causal else {}

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model; inputs are int64 [batch, sequence]."""
        return (self.model(**inputs, **self.arguments, return_dict=True).logits,)


class SentenceEmbedding(Head):
    """Returns ``(sentence_embedding [batch, hidden], last_hidden_state [batch, seq, hidden])``."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], pooling: Pooling) -> None:
        super().__init__(model, names)
        self.pooling = pooling

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model and pool; inputs are int64 [batch, sequence]."""
        hidden = self.model(**inputs, return_dict=True).last_hidden_state
        return pooled(hidden, inputs["attention_mask"], self.pooling), hidden


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Sentence vectors [batch, hidden] of token vectors [batch, sequence, hidden]."""
    found = _pool(hidden, mask, pooling.mode)
    return functional.normalize(found, dim=-1) if pooling.normalise else found


def _pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    if mode == "cls":
        return hidden[:, 0]
    keep = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "max":
        return hidden.masked_fill(keep == 0, -1e9).amax(dim=1)
    # sentence-transformers' own guard: a row without valid tokens divides by 1e-9
    return (hidden * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1e-9)
