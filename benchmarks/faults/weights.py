"""Faults in the numbers a graph holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import ml_dtypes
import numpy as np

from benchmarks.faults.model import Array, Model, Site

__all__ = ["WEIGHT_FAULTS"]


def _changed(model: Model, name: str, change: Callable[[Array], Array]) -> Site:
    def plant() -> None:
        weight = model.weights[name]
        model.set_weight(name, change(weight.astype(np.float64)).astype(weight.dtype))

    return Site(name, model.readers(name), plant)


def _of_each(
    change: Callable[[Array], Array], names: Callable[[Model], Iterable[str]] = Model.matrices
) -> Callable[[Model], Iterator[Site]]:
    """A fault that changes one weight; weights it would leave as they are give no place."""

    def sites(model: Model) -> Iterator[Site]:
        for name in names(model):
            weight = model.weights[name]
            if (change(weight.astype(np.float64)).astype(weight.dtype) != weight).any():
                yield _changed(model, name, change)

    return sites


def _vectors(model: Model, ops: dict[str, int], suffix: str) -> Iterator[str]:
    """Floating-point vectors at one input of these operators, or named with ``suffix``."""
    for name, weight in model.weights.items():
        if weight.dtype.kind != "f" or weight.ndim != 1 or weight.size < 2:
            continue
        users = model.main.users(name)
        known = any(name == (*u.input, "", "")[ops[u.op_type]] for u in users if u.op_type in ops)
        if known or (users and name.endswith(suffix)):
            yield name


def biases(model: Model) -> Iterator[str]:
    """Vectors that are added."""
    yield from _vectors(model, {"Gemm": 2, "Conv": 2, "LayerNormalization": 2}, ".bias")


def gains(model: Model) -> Iterator[str]:
    """Vectors that norms multiply with."""
    yield from _vectors(model, {"LayerNormalization": 1}, "norm.weight")


def tables(model: Model) -> Iterator[str]:
    """Matrices of more than two rows that are looked up by row."""
    for node in model.main.of("Gather"):
        table = model.weights.get(node.input[0])
        if table is not None and table.dtype.kind == "f" and len(table) > 2:
            yield node.input[0]


def row_scaled(weight: Array) -> Array:
    """The middle row times 1.0003; in float16, that may be no number but the same."""
    return _at_row(weight, len(weight) // 2, lambda row: row * 1.0003)


def rows_swapped(weight: Array) -> Array:
    """The first and the last row change places."""
    order = [len(weight) - 1, *range(1, len(weight) - 1), 0]
    swapped: Array = weight[order] if len(weight) > 1 else weight
    return swapped


def element_changed(weight: Array) -> Array:
    """One element in the middle moves by the root mean square of all."""
    changed: Array = weight.copy()
    changed.flat[weight.size // 2] += np.sqrt(np.mean(weight**2))
    return changed


def transposed(weight: Array) -> Array:
    """A square matrix with rows for columns; others stay."""
    square = weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    turned: Array = weight.T if square else weight
    return turned


def column_zeroed(weight: Array) -> Array:
    """The last column is zero."""
    changed: Array = weight.copy()
    changed[..., -1] = 0
    return changed


def int8_rounded(weight: Array) -> Array:
    """Rounded as symmetric quantisation to eight bits does."""
    step = np.abs(weight).max() / 127
    rounded: Array = np.round(weight / step) * step
    return rounded


def token_changed(weight: Array) -> Array:
    """One row of an embedding times 1.01."""
    return _at_row(weight, 1, lambda row: row * 1.01)


def token_nan(weight: Array) -> Array:
    """One row of an embedding is NaN."""
    return _at_row(weight, 2, lambda row: row * np.nan)


def _at_row(weight: Array, row: int, change: Callable[[Array], Array]) -> Array:
    changed: Array = weight.copy()
    changed[row] = change(changed[row])
    return changed


def _replaced(other: Array, weight: Array) -> Array:
    return other.astype(weight.dtype)


def _from_elsewhere(model: Model) -> Iterator[Site]:
    """A matrix is that of another layer, member or expert of the same shape."""
    names = list(model.matrices())
    for place, name in enumerate(names):
        weight = model.weights[name]
        others = [n for n in names[place + 1 :] + names[:place] if n != name]
        same = (n for n in others if model.weights[n].shape == weight.shape)
        other = next(same, None)
        if other is not None:
            yield _changed(model, name, partial(_replaced, model.weights[other]))


WEIGHT_FAULTS: dict[str, Callable[[Model], Iterator[Site]]] = {
    "weight row scaled by 0.03 %": _of_each(row_scaled),
    "matrix scaled by 3 %": _of_each(lambda w: w * 1.03),
    "matrix scaled by 0.1 %": _of_each(lambda w: w * 1.001),
    "two rows swapped": _of_each(rows_swapped),
    "one element changed": _of_each(element_changed),
    "square matrix transposed": _of_each(transposed),
    "column zeroed": _of_each(column_zeroed),
    "weight zeroed": _of_each(lambda w: w * 0),
    "row's sign flipped": _of_each(lambda w: _at_row(w, 0, np.negative)),
    "matrix rounded to float16": _of_each(lambda w: w.astype(np.float16).astype(np.float64)),
    "matrix rounded to bfloat16": _of_each(
        lambda w: w.astype(ml_dtypes.bfloat16).astype(np.float64)
    ),
    "matrix rounded to int8": _of_each(int8_rounded),
    "matrix of another layer": _from_elsewhere,
    "bias dropped": _of_each(lambda w: w * 0, biases),
    "bias element changed": _of_each(element_changed, biases),
    "norm gain dropped": _of_each(lambda w: w * 0 + 1, gains),
    "one token's embedding changed": _of_each(token_changed, tables),
    "NaN for one token": _of_each(token_nan, tables),
    "table shifted by one row": _of_each(lambda w: np.roll(w, 1, axis=0), tables),
}
