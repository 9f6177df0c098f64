"""From logits to tokens: the most probable, or drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.generation.settings import GenerationSettings

__all__ = ["choose", "log_softmax"]

_Array = npt.NDArray[Any]


def choose(logits: _Array, settings: GenerationSettings, rng: np.random.Generator) -> _Array:
    """One token for each row of logits [rows, vocabulary]: int64 [rows].

    Equal logits: the smallest id. Interpolated logits are log probabilities, to which all of this
    applies as well.
    """
    if settings.temperature == 0:
        return np.asarray(logits.argmax(axis=-1), np.int64)
    scores = log_softmax(logits / settings.temperature)
    kept = np.exp(_nucleus(_largest(scores, settings.top_k), settings.top_p))
    edges = kept.cumsum(axis=-1)
    drawn = rng.random((len(edges), 1)) * edges[:, -1:]
    return np.asarray((edges <= drawn).sum(axis=-1), np.int64)


def log_softmax(logits: _Array) -> npt.NDArray[np.float64]:
    """Of the last axis, in float64; rows that are -inf throughout give NaN."""
    wide = logits.astype(np.float64)
    below = wide - wide.max(axis=-1, keepdims=True)
    found: npt.NDArray[np.float64] = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
    return found


def _largest(scores: _Array, count: int) -> _Array:
    """-inf for all but the ``count`` largest; of equal ones the smallest ids stay."""
    if not 0 < count < scores.shape[-1]:
        return scores
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :count]
    return _only(scores, order, np.ones(order.shape, bool))


def _nucleus(scores: _Array, mass: float) -> _Array:
    """-inf for all but the fewest most probable that have ``mass`` of what is left together."""
    if mass >= 1:
        return scores
    order = np.argsort(-scores, axis=-1, kind="stable")
    probability = np.exp(np.take_along_axis(scores, order, -1))
    before = probability.cumsum(axis=-1) - probability
    return _only(scores, order, before < mass * probability.sum(axis=-1, keepdims=True))


def _only(scores: _Array, order: _Array, kept: _Array) -> _Array:
    found = np.full_like(scores, -np.inf)
    values = np.where(kept, np.take_along_axis(scores, order, -1), -np.inf)
    np.put_along_axis(found, order, values, axis=-1)
    return found
