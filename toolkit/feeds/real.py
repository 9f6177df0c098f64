"""Real inputs as cases: arrays from an ``.npz`` file, or texts from ``.jsonl`` and a tokenizer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import Shapes, TensorSpec
from toolkit.caches import CROSS
from toolkit.errors import CapabilityError, RecipeError
from toolkit.feeds.cases import Case

__all__ = ["real_cases"]

_Array = npt.NDArray[Any]
_Arrays = dict[str, _Array]


def real_cases(
    path: Path, inputs: Sequence[TensorSpec], shapes: Shapes, tokenizer: Path | None
) -> tuple[Case, ...]:
    """Cases of kind ``real``, as many rows in each as ``shapes`` calls usual.

    Args:
        path: An ``.npz`` with one array for each input, or a ``.jsonl`` whose lines are texts or
            mappings with ``text`` or ``input_ids``. Texts are cut to the longest shape allowed and
            padded on the right to the longest of their case; caches are empty.
        inputs: The model's inputs.
        shapes: The ranges of their dimensions.
        tokenizer: A ``tokenizer.json``, for texts.

    Raises:
        RecipeError: If the file cannot be read or does not fit the inputs.
        CapabilityError: If texts need the tokenizers package and it is not installed.
    """
    rows = next((spec.shape[0] for spec in inputs if spec.shape), None)
    step = shapes[rows].opt if isinstance(rows, str) else None
    if path.suffix == ".npz":
        batches = _arrays(path, inputs, step)
    elif path.suffix == ".jsonl":
        batches = _texts(path, inputs, shapes, tokenizer, step or int(rows or 1))
    else:
        raise RecipeError(f"parity.inputs: {path.name} is neither .npz nor .jsonl")
    return tuple(_case(index, arrays, inputs, shapes, path) for index, arrays in enumerate(batches))


def _case(
    index: int, arrays: _Arrays, inputs: Sequence[TensorSpec], shapes: Shapes, path: Path
) -> Case:
    dims: dict[str, int] = {}
    for spec in inputs:
        _fit(spec, arrays[spec.name], dims, shapes, path)
    sizes = " ".join(f"{name}={size}" for name, size in dims.items())
    return Case(f"real {index}: {sizes}", "real", dims, lambda: dict(arrays))


def _fit(spec: TensorSpec, array: _Array, dims: dict[str, int], shapes: Shapes, path: Path) -> None:
    """Note the sizes of an array's dimensions, and refuse what the model does not promise."""
    where = f"parity.inputs: {spec.name!r} of {path.name}"
    if array.ndim != len(spec.shape):
        raise RecipeError(f"{where} has shape {list(array.shape)}, wanted {spec}")
    for size, dim in zip(array.shape, spec.shape, strict=True):
        known = dims.setdefault(str(dim), size) if dim in shapes else _size(dim, dims)
        if known is not None and known != size:
            raise RecipeError(f"{where} has shape {list(array.shape)}, wanted {spec}")
        if dim in shapes and not shapes[str(dim)].min <= size <= shapes[str(dim)].max:
            span = shapes[str(dim)]
            raise RecipeError(
                f"{where} has {dim} {size}, outside the range [{span.min}, {span.opt}, {span.max}]"
            )


def _size(dim: int | str, dims: Mapping[str, int]) -> int | None:
    """A fixed size, or a sum of known ones; None where a term is not known yet."""
    if isinstance(dim, int):
        return dim
    sizes = [dims.get(name) for name in dim.split(" + ")]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _arrays(path: Path, inputs: Sequence[TensorSpec], step: int | None) -> Iterator[_Arrays]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RecipeError(f"parity.inputs: {path.name} is no .npz of plain arrays") from error
    missing = [spec.name for spec in inputs if spec.name not in found]
    if missing:
        raise RecipeError(
            f"parity.inputs: {path.name} has no array {missing[0]!r}",
            hint="it has " + ", ".join(sorted(found)),
        )
    whole = {spec.name: found[spec.name].astype(spec.dtype) for spec in inputs}
    if step is None:
        yield whole
        return
    count = min(len(array) for array in whole.values())
    for start in range(0, count, step):
        yield {name: array[start : start + step] for name, array in whole.items()}


def _texts(
    path: Path, inputs: Sequence[TensorSpec], shapes: Shapes, tokenizer: Path | None, step: int
) -> Iterator[_Arrays]:
    if any(spec.name.startswith(CROSS) for spec in inputs):
        raise RecipeError(
            f"parity.inputs: {path.name} holds texts, and a decoder reads what its encoder made",
            hint="give its arrays as .npz, or texts to the encoder's recipe",
        )
    ids = next((spec for spec in inputs if spec.name.endswith("input_ids")), None)
    length = ids.shape[-1] if ids is not None and len(ids.shape) == 2 else None
    if ids is None or not isinstance(length, str):
        raise RecipeError(
            f"parity.inputs: {path.name} holds texts, but the model takes no input_ids",
            hint="give its arrays as .npz",
        )
    rows = [row[: shapes[length].max] for row in _token_rows(path, tokenizer)]
    for start in range(0, len(rows), step):
        yield _padded(rows[start : start + step], ids.name, inputs, shapes[length].min)


def _token_rows(path: Path, tokenizer: Path | None) -> list[list[int]]:
    rows, encoder = [], None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"parity.inputs: {path.name} cannot be read as text") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"parity.inputs: line {number} of {path.name} is no JSON") from error
        given = value.get("input_ids", value.get("text")) if isinstance(value, dict) else value
        if isinstance(given, str):
            encoder = encoder or _tokenizer(tokenizer, path)
            given = encoder.encode(given).ids
        if not isinstance(given, list) or not given or any(type(i) is not int for i in given):
            raise RecipeError(
                f"parity.inputs: line {number} of {path.name} holds neither text nor input_ids"
            )
        rows.append(given)
    return rows


def _tokenizer(path: Path | None, asked: Path) -> Any:
    if path is None or not path.is_file():
        raise RecipeError(
            f"parity.inputs: {asked.name} holds texts, but no model has a tokenizer.json",
            hint='give {"input_ids": [...]} on each line instead',
        )
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (an optional extra)
    except ImportError as error:
        raise CapabilityError(
            "texts need the tokenizers package, which is not installed",
            hint="pip install 'ensemble-to-engine[hf]'",
        ) from error
    encoder = Tokenizer.from_file(str(path))
    encoder.no_padding()
    return encoder


def _padded(
    rows: Sequence[Sequence[int]], name: str, inputs: Sequence[TensorSpec], shortest: int
) -> _Arrays:
    longest = max(shortest, *(len(row) for row in rows))
    valid = np.array([[i < len(row) for i in range(longest)] for row in rows])
    made = {}
    for spec in inputs:
        dtype = np.dtype(spec.dtype)
        if spec.name == name:
            filled = [list(row) + [0] * (longest - len(row)) for row in rows]
            made[spec.name] = np.array(filled, dtype)
        elif spec.role == "mask":
            made[spec.name] = valid.astype(dtype)
        elif spec.name.endswith("position_ids"):
            made[spec.name] = np.broadcast_to(np.arange(longest), valid.shape).astype(dtype)
        elif len(spec.shape) == 2:
            made[spec.name] = np.zeros(valid.shape, dtype)
        else:  # a cache: nothing is in it yet
            sizes = [dim if isinstance(dim, int) else 0 for dim in spec.shape[1:]]
            made[spec.name] = np.zeros((len(rows), *sizes), dtype)
    return made
