"""Counter-based random bits: each element's draw depends on its tensor and index, nothing else.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is a
hash of the seed, the model and the tensor's name, so neither threads, nor chunks, nor the order of
models or tensors, nor another tensor's settings change a draw.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.merge.kernels.bits import compiled

__all__ = ["SPAN", "key", "random_bits", "threshold"]

# Elements of one run of counters; draws start at a multiple of it.
SPAN = 4096
_QUARTER = SPAN // 4


def key(seed: int, model: str, tensor: str) -> tuple[int, int]:
    """The two 32-bit key words of one model's tensor."""
    text = f"{seed}\0{model}\0{tensor}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def threshold(probability: float) -> int:
    """Draws below this number, of 32 bits, have the given probability to within 2**-33."""
    return min(round(probability * 2.0**32), 2**32 - 1)


@compiled
def _fill(key_low: int, key_high: int, span: int, out: Any) -> None:
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for j in range(_QUARTER):
        counter = np.uint64(span) * np.uint64(_QUARTER) + np.uint64(j)
        a, b = counter & mask, counter >> half
        c, d = np.uint64(0), np.uint64(0)
        k, m = np.uint64(key_low), np.uint64(key_high)
        for _ in range(10):
            left = a * np.uint64(0xD2511F53)
            right = c * np.uint64(0xCD9E8D57)
            a = (right >> half) ^ b ^ k
            b = right & mask
            c = (left >> half) ^ d ^ m
            d = left & mask
            k = (k + np.uint64(0x9E3779B9)) & mask
            m = (m + np.uint64(0xBB67AE85)) & mask
        out[j] = np.uint32(a)
        out[_QUARTER + j] = np.uint32(b)
        out[2 * _QUARTER + j] = np.uint32(c)
        out[3 * _QUARTER + j] = np.uint32(d)


@compiled
def _fill_all(key_low: int, key_high: int, first: int, out: Any) -> None:
    whole = out.size // SPAN
    for span in range(whole):
        _fill(key_low, key_high, first + span, out[span * SPAN : (span + 1) * SPAN])
    rest = out.size - whole * SPAN
    if rest > 0:
        tail = np.empty(SPAN, np.uint32)
        _fill(key_low, key_high, first + whole, tail)
        out[whole * SPAN :] = tail[:rest]


def random_bits(words: tuple[int, int], start: int, count: int) -> npt.NDArray[np.uint32]:
    """32 random bits for each of ``count`` elements from index ``start`` on, ``uint32[count]``."""
    first = start // SPAN
    skip = start - first * SPAN
    out = np.empty(skip + count, np.uint32)
    _fill_all(words[0], words[1], first, out)
    return out[skip:]
