"""Which rows a step learns from, whoever computes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from toolkit.errors import RecipeError

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """A new seeded order in every pass; rows that do not fill a batch wait for the next one.

    Attributes:
        rows: Numbers of the rows to learn from, int64.
        batch: Of a step; fewer where there are fewer rows.
        seed: Of the order.
    """

    rows: Tensor
    batch: int
    seed: int

    @property
    def size(self) -> int:
        """Rows of a step."""
        return min(self.batch, len(self.rows))

    @property
    def per_pass(self) -> int:
        """Steps of a pass."""
        return len(self.rows) // self.size

    def step(self, number: int) -> Tensor:
        """The rows of a step, int64 [size]."""
        turn, place = divmod(number, self.per_pass)
        drawn = self._drawn(turn)
        return self.rows[drawn[place * self.size : (place + 1) * self.size]]

    def _drawn(self, turn: int) -> Tensor:
        return _permutation(len(self.rows), (self.seed << 20) + turn)

    def share(self, number: int, process: int, processes: int, part: int | None) -> list[Tensor]:
        """What one process has to do in a step, in parts of at most ``part`` rows.

        Raises:
            RecipeError: If the batch cannot be shared evenly.
        """
        if self.size % processes:
            raise RecipeError(
                f"a batch of {self.size} rows cannot be shared by {processes} processes",
                hint=f"training: {{batch: {processes * max(1, self.size // processes)}}}",
            )
        own = self.step(number).tensor_split(processes)[process]
        return list(own.tensor_split(-(-len(own) // (part or len(own)))))


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed % (1 << 63)))
