"""The inputs a proof runs: every corner of the shape ranges first, then what breaks exports."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import DimRange, Shapes, TensorSpec, corners
from toolkit.caches import CROSS
from toolkit.errors import RecipeError
from toolkit.feeds.fills import Fill, make_feeds

__all__ = ["Case", "cases"]

# 3 ** 3: models of up to three dimensions get all their corners. With more, the corners that
# move one dimension and a seeded sample of the others have to do.
_MAX_CORNERS = 27

_ADVERSARIAL: Mapping[Fill, str] = {
    "single_valid": "all padding but one",
    "smallest": "smallest values",
    "largest": "largest values",
    "repeated": "one value repeated",
    "large": "large magnitudes",
    "zeros": "zeros",
}


Arrays = dict[str, npt.NDArray[Any]]
Model = Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]


@dataclass(frozen=True)
class Case:
    """One set of inputs, drawn only when asked for.

    Attributes:
        name: Unique among the cases of a proof, and readable.
        kind: The class of cases it is counted with: ``corner``, ``padded``, ``near corner``,
            ``adversarial`` or ``random``; callers may add kinds of their own.
        dims: The value of every symbolic dimension.
        make: Draws the arrays, the same ones at every call.
        drive: What is done with a model and the feeds; None for running it once.
        mask: Name of the mask whose padded positions give outputs that nobody reads and that are
            not compared: a position that only padding precedes attends to nothing.
    """

    name: str
    kind: str
    dims: Mapping[str, int]
    make: Callable[[], Arrays]
    drive: Callable[[Model, Arrays], Arrays] | None = None
    mask: str | None = None

    def feeds(self) -> Arrays:
        """The input arrays by name."""
        return self.make()

    def run(self, model: Model) -> Arrays:
        """The outputs by name."""
        feeds = self.make()
        if self.drive is not None:
            return self.drive(model, feeds)
        return self.finish(model(feeds))

    def finish(self, found: Arrays) -> Arrays:
        """Outputs of one run, with zeros where ``mask`` is 0."""
        if self.mask is None:
            return found
        mask = self.make()[self.mask] != 0
        return {name: _blanked(array, mask) for name, array in found.items()}


def _blanked(array: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """``array`` [rows, positions, …] or cache [rows, heads, positions, …] where the mask is 1."""
    rows, positions = mask.shape
    if array.shape[:2] == (rows, positions):
        kept = mask.reshape(rows, positions, *[1] * (array.ndim - 2))
    elif array.ndim == 4 and array.shape[0] == rows and array.shape[2] == positions:
        kept = mask[:, None, :, None]
    elif array.ndim == 3 and array.shape[0] == rows and array.shape[1] < positions:
        kept = mask[:, positions - array.shape[1] :, None]  # the new positions after a cache
    else:
        return array
    blanked: npt.NDArray[Any] = np.where(kept, array, np.zeros((), array.dtype))
    return blanked


def cases(
    inputs: Sequence[TensorSpec], shapes: Shapes, *, seed: int, count: int
) -> tuple[Case, ...]:
    """The cases of a proof, most telling first.

    1. ``corner``: min, opt and max of every dimension, no padding.
    2. ``padded``: the opt, min and max shapes with random padding, right and left (models with
       a mask).
    3. ``near corner``: one inside min and max, the other dimensions at opt, padded.
    4. ``adversarial``: all padding but one, the ends of the vocabulary, one token, one token
       repeated, large magnitudes, zeros; those that mean something for these inputs.
    5. ``random``: ``count`` shapes and contents drawn from the seed.

    A case's content depends on the seed and its name only, so asking for more cases changes none
    of the others.

    Raises:
        RecipeError: If a symbolic dimension has no range.
    """
    used = _used(inputs, shapes)
    mask = next((s.name for s in inputs if s.role == "mask" and len(s.shape) == 2), None)
    if any(spec.name.startswith(CROSS) for spec in inputs):
        mask = None  # it covers the source, which a decoder's outputs have no positions of
    found: dict[str, Case] = {}
    for title, kind, dims, fill in _plan(inputs, used, seed, count):
        sizes = " ".join(f"{name}={size}" for name, size in dims.items())
        name = f"{title}: {sizes}" if sizes else title
        make = partial(_feeds, tuple(inputs), dims, (seed, zlib.crc32(name.encode())), fill)
        found.setdefault(name, Case(name, kind, dims, make, mask=mask if fill == "left" else None))
    return tuple(found.values())


_Plan = Iterator[tuple[str, str, dict[str, int], Fill]]


def _plan(inputs: Sequence[TensorSpec], shapes: Shapes, seed: int, count: int) -> _Plan:
    masked = any(spec.role == "mask" for spec in inputs)
    for dims in _corners(shapes, seed):
        yield "corner", "corner", dims, "full"
    if masked:
        for dims in _extremes(shapes):
            yield "padded", "padded", dims, "random"
            yield "padded on the left", "padded", dims, "left"
    for dims in _near_corners(shapes):
        yield "near corner", "near corner", dims, "random"
    yield from _adversarial(inputs, shapes, masked)
    rng = np.random.default_rng((seed, 0))
    for index in range(count):
        dims = {name: int(rng.integers(r.min, r.max + 1)) for name, r in shapes.items()}
        yield f"random {index}", "random", dims, "random"


def _used(inputs: Sequence[TensorSpec], shapes: Shapes) -> dict[str, DimRange]:
    symbols = dict.fromkeys((dim, spec.name) for spec in inputs for dim in spec.symbols)
    for symbol, name in symbols:
        if symbol not in shapes:
            raise RecipeError(
                f"input {name!r} has dimension {symbol!r}, which has no range under shapes",
                hint=f"for example shapes: {{{symbol}: [1, 8, 32]}}",
            )
    return {symbol: shapes[symbol] for symbol in dict.fromkeys(symbol for symbol, _ in symbols)}


def _extremes(shapes: Shapes) -> Iterator[dict[str, int]]:
    yield {name: r.opt for name, r in shapes.items()}
    yield {name: r.min for name, r in shapes.items()}
    yield {name: r.max for name, r in shapes.items()}


def _corners(shapes: Shapes, seed: int) -> Iterator[dict[str, int]]:
    """All corners where there are few, else the telling ones; extremes first, no repeats."""
    yielded = set()
    for dims in _corner_candidates(shapes, seed):
        key = tuple(dims.values())
        if key not in yielded:
            yielded.add(key)
            yield dims


def _corner_candidates(shapes: Shapes, seed: int) -> Iterator[dict[str, int]]:
    opt = {name: r.opt for name, r in shapes.items()}
    yield from _extremes(shapes)
    for name, r in shapes.items():
        yield opt | {name: r.min}
        yield opt | {name: r.max}
    every = list(islice(corners(shapes), _MAX_CORNERS + 1))
    if len(every) <= _MAX_CORNERS:
        yield from every
        return
    rng = np.random.default_rng((seed, 1))
    for _ in range(_MAX_CORNERS):
        yield {name: (r.min, r.opt, r.max)[rng.integers(3)] for name, r in shapes.items()}


def _near_corners(shapes: Shapes) -> Iterator[dict[str, int]]:
    opt = {name: r.opt for name, r in shapes.items()}
    for name, r in shapes.items():
        for size in (r.min + 1, r.opt - 1, r.opt + 1, r.max - 1):
            if r.min <= size <= r.max and size not in {r.min, r.opt, r.max}:
                yield opt | {name: size}


def _adversarial(inputs: Sequence[TensorSpec], shapes: Shapes, masked: bool) -> _Plan:
    opt = {name: r.opt for name, r in shapes.items()}
    telling = _telling(inputs, masked)
    for fill, title in _ADVERSARIAL.items():
        if fill in telling:
            yield title, "adversarial", opt, fill
    rows = {spec.shape[0] for spec in inputs if spec.shape}
    inner = {name: r.min for name, r in shapes.items() if name not in rows}
    if inner:
        yield "shortest rows", "adversarial", opt | inner, "random"


def _telling(inputs: Sequence[TensorSpec], masked: bool) -> set[Fill]:
    """The fills that differ from ``full`` for these inputs."""
    values = [spec for spec in inputs if spec.role == "values"]
    integers = any("int" in spec.dtype for spec in values)
    floats = any("float" in spec.dtype for spec in values)
    bounded = any(spec.low is not None or spec.high is not None for spec in values)
    telling: set[Fill] = {"single_valid"} if masked else set()
    if integers or bounded or any(spec.dtype == "bool" for spec in values):
        telling |= {"smallest", "largest"}
    if integers:
        telling |= {"repeated"}
    if floats:
        telling |= {"large", "zeros"}
    return telling


def _feeds(
    inputs: tuple[TensorSpec, ...], dims: Mapping[str, int], seed: tuple[int, int], fill: Fill
) -> dict[str, npt.NDArray[Any]]:
    return make_feeds(inputs, dims, np.random.default_rng(seed), fill)
