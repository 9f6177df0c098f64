"""How close a hypothesis is to its reference: BLEU of one sentence, smoothed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["sentence_bleu"]

_ORDER = 4


def sentence_bleu(hypothesis: Sequence[int], reference: Sequence[int]) -> float:
    """BLEU (Papineni et al. 2002) of one sentence of tokens against one reference, 0 to 1.

    Smoothed as in Lin & Och 2004 ("BLEU+1"; method 2 of Chen & Cherry 2014, who compare seven):
    for n-grams of two to four tokens one is added to the matches and to the count, so that one
    missing order does not make the score of a sentence 0.

        BLEU = min(1, exp(1 - r/c)) (prod_n p_n)^(1/4),   p_1 = m_1 / c,  p_n = (m_n + 1)/(t_n + 1)
    """
    length = len(hypothesis)
    if not length:
        return 0.0
    logs = 0.0
    for order in range(1, _ORDER + 1):
        own, theirs = _grams(hypothesis, order), _grams(reference, order)
        matches = sum(min(count, theirs[gram]) for gram, count in own.items())
        more = 1 if order > 1 else 0
        if not matches + more:
            return 0.0
        logs += math.log((matches + more) / (max(length - order + 1, 0) + more))
    brevity = min(0.0, 1 - len(reference) / length)
    return math.exp(brevity + logs / _ORDER)


def _grams(tokens: Sequence[int], order: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
