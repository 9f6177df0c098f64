"""Which entries of a task vector survive: by magnitude, by chance, or by both.

A sparsifier is options; ``prepare`` looks at one tensor and returns ``Masks``, which fills the
masks of its chunks in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from toolkit.merge.kernels import mask_top, random_bits
from toolkit.merge.kernels.philox import key, threshold
from toolkit.merge.kernels.selection import (
    LOWER,
    UPPER,
    kth_from_top,
    lower_histogram,
    upper_histogram,
)
from toolkit.merge.operands import Operands

__all__ = [
    "Della",
    "Magnitude",
    "Masks",
    "Outliers",
    "Random",
    "Sparsifier",
    "Thresholds",
    "Top",
    "tops",
]

Array = npt.NDArray[Any]
# (start, rows, masks): fill masks, [models, elements], for one chunk.
Masks = Callable[[int, Array, Array], None]


class Sparsifier(Protocol):
    """Chooses entries of every model's task vector."""

    @property
    def whole_rows(self) -> bool:
        """Whether chunks must end with rows."""

    @property
    def densities(self) -> tuple[float, ...]:
        """The share of entries that each model keeps."""

    def prepare(self, operands: Operands) -> Masks:
        """Look at a tensor, in as many passes as it takes."""


@dataclass
class Top:
    """The first so many elements in order of magnitude, as a threshold and a quota of equals."""

    threshold: int
    quota: int

    def mark(self, row: Array, base: Array, mask: Array) -> None:
        """Mask the next chunk."""
        self.quota = mask_top(row, base, self.threshold, self.quota, mask)


def tops(operands: Operands, wanted: Sequence[tuple[int, int]]) -> list[Top]:
    """Find the thresholds of several (row, k) at once, in two passes.

    Args:
        operands: Base first.
        wanted: Which row's task vector, and how many of its elements: 1 to all.
    """
    upper = np.zeros((len(operands.tensors), UPPER), np.int64)
    for _, rows in operands.chunks():
        for i in {row for row, _ in wanted}:
            upper_histogram(rows[i], rows[0], upper[i])
    bins = [kth_from_top(upper[row], k) for row, k in wanted]
    lower = np.zeros((len(wanted), LOWER), np.int64)
    for _, rows in operands.chunks():
        for n, (row, _) in enumerate(wanted):
            lower_histogram(rows[row], rows[0], bins[n][0], lower[n])
    found = []
    for n, (high, rest) in enumerate(bins):
        low, quota = kth_from_top(lower[n], rest)
        found.append(Top(high << 15 | low, quota))
    return found


@dataclass(frozen=True)
class Magnitude:
    """Keep the ``int(density * n)`` largest magnitudes; of equals, those that come first (TIES).

    mergekit keeps the same number, but an arbitrary choice of the equals.

    Attributes:
        densities: One per model.
        over_model: Whether to count over the whole model, as the paper does, and not per tensor.
    """

    densities: tuple[float, ...]
    over_model: bool = False
    whole_rows: bool = False

    def prepare(self, operands: Operands) -> Masks:
        """Two passes, none where every density is 1."""
        counts = [int(density * operands.size) for density in self.densities]
        wanted = [(i, k) for i, k in enumerate(counts, 1) if 0 < k < operands.size]
        found = dict(zip([i for i, _ in wanted], tops(operands, wanted), strict=True))

        def fill(_start: int, rows: Array, masks: Array) -> None:
            for i, k in enumerate(counts, 1):
                if i in found:
                    found[i].mark(rows[i], rows[0], masks[i - 1])
                else:
                    masks[i - 1] = k > 0

        return fill


@dataclass(frozen=True)
class Thresholds:
    """Keep what lies above a key found before, and so many that equal it.

    Attributes:
        densities: One per model.
        tops: Key and number of equals, one pair per model.
    """

    densities: tuple[float, ...]
    tops: tuple[tuple[int, int], ...]
    whole_rows: bool = False

    def prepare(self, _operands: Operands) -> Masks:
        """No pass."""
        found = [Top(key, quota) for key, quota in self.tops]

        def fill(_start: int, rows: Array, masks: Array) -> None:
            for i, top in enumerate(found):
                top.mark(rows[i + 1], rows[0], masks[i])

        return fill


@dataclass(frozen=True)
class Outliers:
    """Drop the ``gamma`` share of largest magnitudes, then the smallest down to the density.

    Model Breadcrumbs (Davari & Belilovsky 2024, arXiv:2312.06795). Where ``density + gamma`` is
    more than 1, fewer of the largest are dropped, as in mergekit.
    """

    densities: tuple[float, ...]
    gammas: tuple[float, ...]
    whole_rows: bool = False

    def prepare(self, operands: Operands) -> Masks:
        """Two passes."""
        ranges = [self._range(i, operands.size) for i in range(len(self.densities))]
        wanted = [(i, k) for i, pair in enumerate(ranges, 1) for k in pair if 0 < k < operands.size]
        found = dict(zip(wanted, tops(operands, wanted), strict=True))

        def mark(i: int, k: int, rows: Array, mask: Array) -> None:
            if (i, k) in found:
                found[i, k].mark(rows[i], rows[0], mask)
            else:
                mask[:] = k > 0

        def fill(_start: int, rows: Array, masks: Array) -> None:
            dropped = operands.scratch.array("dropped", (rows.shape[1],), np.uint8)
            for i, (top, upto) in enumerate(ranges, 1):
                mark(i, upto, rows, masks[i - 1])
                if top:
                    mark(i, top, rows, dropped)
                    masks[i - 1] &= 1 - dropped

        return fill

    def _range(self, model: int, size: int) -> tuple[int, int]:
        """How many of the largest to drop, and how many of the largest to look at."""
        density, gamma = self.densities[model], self.gammas[model]
        if density >= 1:
            return 0, size
        kept, top = int(density * size), int(gamma * size)
        top = min(top, size - kept)
        return top, top + kept


@dataclass(frozen=True)
class Random:
    """Keep each entry with probability ``density``, by its own draw (DARE).

    Attributes:
        densities: One per model.
        models: Their names, part of the key of the draws.
        seed: The other part.
    """

    densities: tuple[float, ...]
    models: tuple[str, ...]
    seed: int
    whole_rows: bool = False

    def prepare(self, operands: Operands) -> Masks:
        """No pass: masks depend on nothing but names, seed and index."""
        keys = [key(self.seed, model, operands.name) for model in self.models]

        def fill(start: int, rows: Array, masks: Array) -> None:
            for mask, density, words in zip(masks, self.densities, keys, strict=True):
                if density >= 1:
                    mask[:] = 1
                else:
                    bits = random_bits(words, start, rows.shape[1])
                    np.less(bits, np.uint32(threshold(density)), out=mask.view(np.bool_))

        return fill


@dataclass(frozen=True)
class Della:
    """Keep an entry with a probability that grows with its magnitude's rank in its row (MAGPRUNE).

    ``p = density - epsilon + 2 epsilon * rank / (columns - 1)`` and kept entries are divided by
    their own ``p`` (Deep et al. 2024, arXiv:2406.11617), which the masks contain. Of equal
    magnitudes the one that comes first ranks lower.

    Attributes:
        densities: One per model.
        epsilons: Half the range of probabilities; ``density +- epsilon`` lies in (0, 1).
        models: Names of the models, part of the key of the draws.
        seed: The other part.
        rescale: Whether to divide by ``p``.
    """

    densities: tuple[float, ...]
    epsilons: tuple[float, ...]
    models: tuple[str, ...]
    seed: int
    rescale: bool
    whole_rows: bool = True

    def prepare(self, operands: Operands) -> Masks:
        """No pass; ranks are those of a row, which a chunk holds whole."""
        keys = [key(self.seed, model, operands.name) for model in self.models]

        def fill(start: int, rows: Array, masks: Array) -> None:
            wide = operands.widened(rows)
            for i, words in enumerate(keys):
                if self.densities[i] >= 1:
                    masks[i] = 1
                    continue
                chance = self._probabilities(i, (wide[i + 1] - wide[0]).reshape(-1, operands.row))
                draws = random_bits(words, start, rows.shape[1]) * 2.0**-32
                masks[i] = (draws < chance) / (chance if self.rescale else 1.0)

        return fill

    def _probabilities(self, model: int, delta: Array) -> Array:
        order = np.argsort(np.abs(delta), axis=1, kind="stable")
        ranks = np.empty(delta.shape)
        np.put_along_axis(ranks, order, np.arange(delta.shape[1], dtype=np.float64)[None], axis=1)
        low, epsilon = self.densities[model] - self.epsilons[model], self.epsilons[model]
        return np.asarray(low + 2 * epsilon * ranks / max(delta.shape[1] - 1, 1)).reshape(-1)
