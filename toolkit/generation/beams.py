"""Beam search over one prompt: the rows of the decoder are the hypotheses.

Twice as many continuations as beams are looked at, so that enough are left when some end. A
hypothesis that ends is scored by its log probability over its length to the power of
``length_penalty``; the search is over when no running hypothesis can beat the worst of the finished
ones at its present length (as in Hugging Face's generation with ``early_stopping`` off).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.generation.choosing import log_softmax
from toolkit.generation.decoder import Decoder, State
from toolkit.generation.settings import GenerationSettings
from toolkit.generation.source import Source

__all__ = ["search"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Finished:
    score: float
    tokens: tuple[int, ...]


def search(
    decoder: Decoder,
    prompt: _Array,
    settings: GenerationSettings,
    ends: Collection[int],
    source: Source | None = None,
) -> tuple[int, ...]:
    """The best continuation of ``prompt`` [length], with the token that ends it if one does.

    ``source`` is what an encoder made of the one text that is decoded.
    """
    beams = settings.beams
    rows = np.repeat(prompt[None], beams, axis=0)
    read = None if source is None else source.repeated(beams)
    logits, state = decoder.step(rows, np.ones_like(rows), decoder.start(beams, read))
    # All rows are the same at first, so only one of them may be continued.
    scores = np.full(beams, -np.inf)
    scores[0] = 0.0
    texts: list[tuple[int, ...]] = [()] * beams
    finished: list[_Finished] = []
    for length in range(1, settings.max_new_tokens + 1):
        total = scores[:, None] + log_softmax(logits)
        best = _largest(total, 2 * beams)
        running: list[tuple[float, int, int]] = []
        for place, (score, row, token) in enumerate(best):
            if token in ends:
                if place < beams:
                    found = _Finished(score / length**settings.length_penalty, (*texts[row], token))
                    finished = _kept([*finished, found], beams)
            elif len(running) < beams:
                running.append((score, row, token))
        scores = np.array([score for score, _, _ in running])
        texts = [(*texts[row], token) for _, row, token in running]
        if length == settings.max_new_tokens or _over(finished, scores, length, settings):
            break
        logits, state = _advance(decoder, state, running)
    alive = [
        _Finished(score / len(text) ** settings.length_penalty, text)
        for score, text in zip(scores, texts, strict=True)
    ]
    # Running hypotheses count when the length has run out before enough have ended.
    every = finished if len(finished) >= beams else _kept([*finished, *alive], beams)
    return max(every, key=lambda one: one.score).tokens


def _advance(
    decoder: Decoder, state: State, running: list[tuple[float, int, int]]
) -> tuple[_Array, State]:
    state = decoder.reorder(state, [row for _, row, _ in running])
    tokens = np.array([[token] for _, _, token in running], np.int64)
    return decoder.step(tokens, np.ones_like(tokens), state)


def _largest(total: _Array, count: int) -> list[tuple[float, int, int]]:
    """(score, row, token) of the largest, in falling order."""
    flat = total.ravel()
    order = np.argsort(-flat, kind="stable")[:count]
    width = total.shape[1]
    return [(float(flat[i]), int(i) // width, int(i) % width) for i in order]


def _kept(finished: list[_Finished], count: int) -> list[_Finished]:
    return sorted(finished, key=lambda one: -one.score)[:count]


def _over(
    finished: list[_Finished], scores: _Array, length: int, settings: GenerationSettings
) -> bool:
    if len(finished) < settings.beams:
        return False
    reachable = float(scores.max()) / length**settings.length_penalty
    return bool(reachable <= min(one.score for one in finished))
