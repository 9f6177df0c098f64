"""Labelled examples in batches, split into those that are fitted and those that judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError

__all__ = ["UNCOUNTED", "Batch", "Split", "labelled_examples", "text_examples"]

_Array = npt.NDArray[Any]

# The label of a position where nothing is to be predicted.
UNCOUNTED = -1


@dataclass(frozen=True)
class Batch:
    """Inputs by name, and int64 labels [rows] or [rows, positions]; negative ones do not count."""

    feeds: Mapping[str, _Array]
    labels: _Array


@dataclass(frozen=True)
class Split:
    """Batches to fit, and batches that training never sees."""

    fitted: tuple[Batch, ...]
    validation: tuple[Batch, ...]

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All of them, those to fit first."""
        return (*self.fitted, *self.validation)


def labelled_examples(  # noqa: PLR0913  (each is a different thing, and all are needed)
    arrays: Mapping[str, _Array],
    labels: _Array,
    inputs: Sequence[TensorSpec],
    *,
    share: float,
    size: int,
    seed: int,
) -> Split:
    """Rows in a seeded order, the last ``share`` of them for validation.

    Args:
        arrays: Inputs by name, as many rows as there are labels.
        labels: Whole numbers; what is negative does not count.
        inputs: What the models take.
        share: Of the rows, for validation.
        size: Rows in a batch.
        seed: Of the order.

    Raises:
        RecipeError: If an input is missing, or there are too few rows to split.
    """
    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise RecipeError(
            f"the data has no array {missing[0]!r}, which the models take",
            hint="it has " + ", ".join(sorted(arrays)),
        )
    feeds = {spec.name: arrays[spec.name].astype(spec.dtype) for spec in inputs}
    fitted, validation = _places(len(labels), share, seed)

    def batches(places: _Array) -> tuple[Batch, ...]:
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        return tuple(
            Batch(
                {name: np.ascontiguousarray(array[part]) for name, array in feeds.items()},
                labels[part].astype(np.int64),
            )
            for part in parts
        )

    return Split(batches(fitted), batches(validation))


def text_examples(  # noqa: PLR0913  (each is a different thing, and all are needed)
    texts: Sequence[_Array],
    inputs: Sequence[TensorSpec],
    *,
    window: int,
    share: float,
    size: int,
    seed: int,
) -> Split:
    """Windows of texts, each position labelled with the token that follows it.

    Args:
        texts: Token numbers of each text.
        inputs: What the models take: token numbers, masks and positions, all [rows, positions].
        window: Most positions in a row; windows of a text share nothing.
        share: Of the windows, for validation.
        size: Windows in a batch.
        seed: Of the order.

    Raises:
        RecipeError: If the models take something that a text does not give, or there are too few
            windows to split.
    """
    cuts = [text[at : at + window] for text in texts for at in range(0, len(text), window)]
    windows = [part for part in cuts if len(part) > 1]
    fitted, validation = _places(len(windows), share, seed)

    def batches(places: _Array) -> tuple[Batch, ...]:
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        return tuple(_padded([windows[place] for place in part], inputs) for part in parts)

    return Split(batches(fitted), batches(validation))


def _places(count: int, share: float, seed: int) -> tuple[_Array, _Array]:
    held = round(share * count)
    if not 0 < held < count:
        raise RecipeError(
            f"the data has {count} examples, too few to keep a share of {share:g} for validation"
        )
    order = np.random.default_rng(seed).permutation(count)
    return order[: count - held], order[count - held :]


def _padded(windows: Sequence[_Array], inputs: Sequence[TensorSpec]) -> Batch:
    longest = max(map(len, windows))
    ids = np.zeros((len(windows), longest), np.int64)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, UNCOUNTED)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
        labels[row, : len(window) - 1] = window[1:]
    feeds: dict[str, _Array] = {}
    for spec in inputs:
        if spec.role == "mask":
            feeds[spec.name] = mask.astype(spec.dtype)
        elif spec.name.endswith("input_ids"):
            feeds[spec.name] = ids.astype(spec.dtype)
        elif spec.name.endswith("position_ids"):
            places = np.broadcast_to(np.arange(longest), ids.shape)
            feeds[spec.name] = np.ascontiguousarray(places, spec.dtype)
        else:
            raise RecipeError(
                f"the models take {spec.name!r}, which a text does not give",
                hint="give arrays with labels, or take caches out of the recipe for fitting",
            )
    return Batch(feeds, labels)
