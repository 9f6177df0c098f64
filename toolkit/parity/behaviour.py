"""Distributions compared as distributions: divergence and the choice they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.parity.options import Space

__all__ = ["Behaviour"]

_Floats = npt.NDArray[np.float64]
# The log of the smallest normal float64. A probability that underflows to zero in float32 but
# not in the reference would otherwise make the divergence infinite.
_LEAST_LOG = float(np.log(np.finfo(np.float64).tiny))


@dataclass
class Behaviour:
    """Agreement over rows, a row being one distribution over the last axis.

    Attributes:
        rows: Distributions compared; rows with a NaN or no possible outcome are left out.
        kl_sum: Sum over rows of the divergence KL(reference || candidate), in nats.
        kl_max: Largest divergence.
        agreed: Rows whose most probable outcome is the same.
        lost_margin: Largest distance, in the output's unit, between the reference's two best
            outcomes among rows that disagree; 0 when all agree. An error below half the margin
            cannot change the choice, so a margin over twice the allowed error means a defect.
    """

    rows: int = 0
    kl_sum: float = 0.0
    kl_max: float = 0.0
    agreed: int = 0
    lost_margin: float = 0.0

    def add(self, reference: _Floats, candidate: _Floats, space: Space) -> None:
        """Count a block of rows, each of shape [rows, outcomes]."""
        usable = ~(np.isnan(reference) | np.isnan(candidate)).any(axis=1)
        usable &= _possible(reference, space) & _possible(candidate, space)
        if not usable.all():
            reference, candidate = reference[usable], candidate[usable]
        if not reference.size:
            return
        divergence = _divergence(_log(reference, space), _log(candidate, space))
        self.rows += len(reference)
        self.kl_sum += float(divergence.sum())
        self.kl_max = max(self.kl_max, float(divergence.max()))
        differs = reference.argmax(axis=1) != candidate.argmax(axis=1)
        self.agreed += int((~differs).sum())
        if differs.any():
            self.lost_margin = max(self.lost_margin, float(_margin(reference[differs]).max()))

    def merge(self, other: Behaviour) -> None:
        """Add another case's counts."""
        self.rows += other.rows
        self.kl_sum += other.kl_sum
        self.kl_max = max(self.kl_max, other.kl_max)
        self.agreed += other.agreed
        self.lost_margin = max(self.lost_margin, other.lost_margin)


def _possible(values: _Floats, space: Space) -> npt.NDArray[np.bool_]:
    """Whether a row has an outcome of non-zero probability, and none that is infinite."""
    best: _Floats = values.max(axis=1)
    possible: npt.NDArray[np.bool_] = best > (0.0 if space == "probabilities" else -np.inf)
    return np.logical_and(possible, np.isfinite(best))


def _log(values: _Floats, space: Space) -> _Floats:
    """Normalised log probabilities."""
    if space == "probabilities":
        with np.errstate(divide="ignore"):
            values = np.log(np.maximum(values, 0.0))
    shifted = values - values.max(axis=1, keepdims=True)
    total: Any = np.exp(shifted).sum(axis=1, keepdims=True)
    normalised: _Floats = shifted - np.log(total)
    return normalised


def _divergence(reference: _Floats, candidate: _Floats) -> _Floats:
    """KL(reference || candidate) of each row, in nats; an impossible outcome adds nothing."""
    gap = np.maximum(reference, _LEAST_LOG) - np.maximum(candidate, _LEAST_LOG)
    divergence: _Floats = (np.exp(reference) * gap).sum(axis=1)
    return np.maximum(divergence, 0.0)


def _margin(reference: _Floats) -> _Floats:
    """Distance between the two largest values of each row."""
    if reference.shape[1] < 2:
        return np.zeros(len(reference))
    best = np.partition(reference, -2, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):
        margin: _Floats = best[:, 1] - best[:, 0]
    # A veto on every other outcome leaves an infinite margin: as large as a margin can be.
    finite: _Floats = np.minimum(margin, np.finfo(np.float64).max)
    return finite
