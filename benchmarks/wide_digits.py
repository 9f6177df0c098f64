"""The three classifiers of the digits samples, wide enough that weights are most of a file.

It is imported with ``samples/recipes`` on the path, as a recipe's factory.
"""

from __future__ import annotations

from digits_models import Attention, Cnn, Mlp

__all__ = ["attention", "cnn", "mlp"]


def cnn() -> Cnn:
    """Untrained; ``image`` [batch, 1, 8, 8] to logits [batch, 10], as all three."""
    return Cnn(128, 256)


def mlp() -> Mlp:
    """Untrained."""
    return Mlp(512, 512)


def attention() -> Attention:
    """Untrained."""
    return Attention(256)
