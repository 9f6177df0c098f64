"""A checkpoint to prune: which tensors, along which axis, and what feeds the model they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifacts import DimRange, Shapes, TensorSpec
from toolkit.checkpoint import Checkpoint, open_checkpoint
from toolkit.errors import RecipeError
from toolkit.feeds import Case, real_cases
from toolkit.sources import FactorySource, HuggingFaceSource, Source
from toolkit.sparse import reduction_axis

__all__ = ["SKIPPED", "Labelled", "SparseSource"]

SKIPPED = ("*embed*", "*wte*", "*wpe*", "*lm_head*", "*router*", "*.gate.weight", "*position*")
"""Tables that are looked up rather than multiplied, heads, and what chooses experts."""

_FLOATS = {"F64", "F32", "F16", "BF16"}
_LABELS = ("label", "labels")
_ROWS = 32


@dataclass(frozen=True)
class Labelled:
    """A case with the classes of its rows, if the file has them."""

    case: Case
    labels: np.ndarray[Any, Any] | None


@dataclass(frozen=True)
class SparseSource:
    """What is pruned.

    Attributes:
        path: A model folder, or a safetensors file.
        factory: For a file: ``module:callable``.
        search: Where the factory's module is looked for.
    """

    path: Path
    factory: str | None = None
    search: Path | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its headers."""
        return open_checkpoint(self.path)

    @property
    def axis(self) -> int:
        """Where weights are summed over."""
        return reduction_axis(self.checkpoint.config)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of transformers'."""
        return self.path.is_dir()

    def chosen(self, layers: Sequence[str], skip: Sequence[str]) -> Iterator[str]:
        """Names of float matrices that match ``layers`` and not ``skip``, in file order."""
        for name, (_, entry) in self.checkpoint.tensors.items():
            wanted = any(fnmatchcase(name, pattern) for pattern in layers)
            spared = any(fnmatchcase(name, pattern) for pattern in skip)
            if len(entry.shape) == 2 and entry.dtype in _FLOATS and wanted and not spared:
                yield name

    def source(self, data: Path | None, path: Path | None = None) -> Source:
        """The model, whose factory takes the arrays of ``data``; ``path`` instead of its own file.

        Raises:
            RecipeError: If it is a file and no factory is named.
        """
        where = path or self.path
        if self.is_folder:
            return HuggingFaceSource(self.path.name, where)
        if self.factory is None or data is None:
            raise RecipeError(
                f"{self.path.name} is a file of weights, and what runs them is not said",
                hint="--factory module:callable --allow-code, and data as .npz",
            )
        return FactorySource(
            self.path.stem, self.factory, where, tuple(_specs(data)), search=self.search
        )

    def cases(self, data: Path, source: Source) -> tuple[Labelled, ...]:
        """What ``data`` holds, texts one at a time so that none is padded.

        Raises:
            RecipeError: If the file does not fit the model.
        """
        shapes: Shapes = {dim: DimRange(1, _ROWS, 1 << 20) for dim in _dims(source)}
        if isinstance(source, HuggingFaceSource):
            shapes = {**shapes, **source.default_shapes()}
            tokenizer = self.path / "tokenizer.json"
        else:
            tokenizer = None
        rows = 1 if data.suffix == ".jsonl" else _ROWS
        batch = next(iter(source.inputs)).shape[0]
        shapes = {**shapes, str(batch): DimRange(1, rows, 1 << 20)}
        found = real_cases(data, source.inputs, shapes, tokenizer)
        labels = _labels(data)
        return tuple(
            Labelled(case, None if labels is None else labels[place * rows : (place + 1) * rows])
            for place, case in enumerate(found)
        )


def _dims(source: Source) -> set[str]:
    return {dim for spec in source.inputs for dim in spec.symbols}


def _specs(data: Path) -> Iterator[TensorSpec]:
    """Inputs of a factory, as the arrays say; labels are none."""
    try:
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name not in _LABELS}
    except (OSError, ValueError) as error:
        raise RecipeError(f"{data} is no .npz of plain arrays") from error
    for name, array in arrays.items():
        yield TensorSpec(name, str(array.dtype), ("batch", *array.shape[1:]))


def _labels(data: Path) -> np.ndarray[Any, Any] | None:
    if data.suffix != ".npz":
        return None
    with np.load(data, allow_pickle=False) as file:
        return next((file[name] for name in _LABELS if name in file.files), None)
