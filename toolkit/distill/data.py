"""What a student learns from: rows by number, of which a seeded part is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.artifacts import TensorSpec
from toolkit.distill.reading import Raw, read_raw
from toolkit.distill.texts import Reader
from toolkit.distill.types import INDEX, LABELS, Batch
from toolkit.errors import RecipeError
from toolkit.sources.base import torch_dtype

__all__ = ["DataOptions", "Examples", "read_examples"]

_LABELS = ("labels", "label", "y")


@dataclass(frozen=True)
class DataOptions:
    """What to read, and what to hold out.

    Attributes:
        path: ``.jsonl``, ``.txt``, ``.npz``, ``.safetensors`` or a ``datasets`` folder.
        held_out: Another file that judges; None for a share of ``path``.
        share: Of the documents, or rows where there is one document; 0 holds nothing out.
        seed: Of the split.
    """

    path: Path
    held_out: Path | None = None
    share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Rows in memory.

    Attributes:
        columns: Inputs by name and, where there are some, ``labels``; all [R, ...].
        train: Numbers of the rows to learn from, int64.
        held: Numbers of those that judge, int64; none where nothing is held out.
        digest: Stands for the content of the rows.
        unit: What a row consists of: ``tokens`` or ``rows``.
    """

    columns: Mapping[str, Tensor] = field(repr=False)
    train: Tensor = field(repr=False)
    held: Tensor = field(repr=False)
    digest: str = ""
    unit: str = "rows"

    def __len__(self) -> int:
        """All rows."""
        return len(next(iter(self.columns.values())))

    def batch(self, rows: Tensor) -> Batch:
        """The rows of these numbers, int64 [B], in that order."""
        found = {name: column[rows] for name, column in self.columns.items()}
        return {**found, INDEX: rows.clone()}

    def size(self, batch: Batch) -> int:
        """How many units a batch has; padding does not count."""
        if self.unit == "rows":
            return len(batch[INDEX])
        names = ("attention_mask", "decoder_input_ids")
        if "attention_mask" not in batch:
            return int(batch["input_ids"].numel())
        decoded = batch[LABELS] if names[1] in batch and LABELS in batch else None
        more = 0 if decoded is None else int((decoded >= 0).sum())
        return int(batch["attention_mask"].sum()) + more

    def with_columns(self, **columns: Tensor) -> Examples:
        """The same rows with some columns replaced."""
        new = {**self.columns, **columns}
        return replace(self, columns=new, digest=_digest(new))

    @property
    def split(self) -> str:
        """Stands for which rows are learnt from and which judge."""
        return _digest({"train": self.train, "held": self.held})


def read_examples(
    options: DataOptions, inputs: Sequence[TensorSpec], reader: Reader | None
) -> Examples:
    """Read rows for models that take ``inputs``.

    Args:
        options: Which files.
        inputs: Of the student and of the teachers, by their shared names.
        reader: Makes rows of texts; None where the models read no tokens.

    Raises:
        RecipeError: If files and models do not fit together, or nothing is left to learn from.
        CheckpointError: If there is no tokenizer for texts.
    """
    raw = read_raw(options.path)
    held = raw.held if options.held_out is None else read_raw(options.held_out)
    parts = [raw] if held is None else [raw, held]
    if held is None and raw.records is not None and options.share:
        parts = _documents(raw, options)
    columns = [_columns(part, inputs, reader) for part in parts]
    joined = _joined(columns)
    counts = [len(next(iter(part.values()))) for part in columns]
    if len(parts) == 1:
        train, held_rows = _split(counts[0], options)
    else:
        train = torch.arange(counts[0])
        held_rows = torch.arange(counts[0], sum(counts))
    unit = "tokens" if "input_ids" in joined else "rows"
    return Examples(joined, train, held_rows, _digest(joined), unit)


def _documents(raw: Raw, options: DataOptions) -> list[Raw]:
    """Two parts with no document in common; one where there are too few documents."""
    assert raw.records is not None
    count = round(options.share * len(raw.records))
    if not 0 < count < len(raw.records):
        return [raw]
    order = np.random.default_rng(options.seed).permutation(len(raw.records))
    train, held = np.sort(order[count:]), np.sort(order[:count])
    return [Raw(raw.digest, records=[raw.records[i] for i in part]) for part in (train, held)]


def _split(count: int, options: DataOptions) -> tuple[Tensor, Tensor]:
    held = round(options.share * count)
    if options.share and not 0 < held < count:
        raise RecipeError(
            f"{options.path.name} gives {count} rows, too few to hold out a share of "
            f"{options.share:g}",
            hint="share: 0 holds nothing out; or give a file as held_out",
        )
    order = torch.from_numpy(np.random.default_rng(options.seed).permutation(count))
    return order[held:].sort().values, order[:held].sort().values


def _columns(raw: Raw, inputs: Sequence[TensorSpec], reader: Reader | None) -> dict[str, Tensor]:
    if raw.arrays is not None and not (reader and _bare(raw, inputs)):
        return _from_arrays(raw, inputs)
    if reader is None:
        raise RecipeError(
            "the data are texts, and the student has no tokenizer",
            hint="name a folder with tokenizer.json as the student's tokenizer, or give arrays",
        )
    return reader.rows(raw.records if raw.records is not None else _records(raw))


def _bare(raw: Raw, inputs: Sequence[TensorSpec]) -> bool:
    """Whether there are tokens alone, without the masks that go with them."""
    assert raw.arrays is not None
    names = {spec.name for spec in inputs}
    return "input_ids" in raw.arrays and not names <= set(raw.arrays)


def _records(raw: Raw) -> list[dict[str, Any]]:
    assert raw.arrays is not None
    return [{name: array[row] for name, array in raw.arrays.items()} for row in range(len(raw))]


def _from_arrays(raw: Raw, inputs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    assert raw.arrays is not None
    missing = [spec.name for spec in inputs if spec.name not in raw.arrays]
    if missing:
        raise RecipeError(
            f"the data has no array {missing[0]!r}, which the models take",
            hint="it has " + ", ".join(sorted(raw.arrays)),
        )
    columns = {
        spec.name: torch.from_numpy(raw.arrays[spec.name]).to(torch_dtype(spec.dtype))
        for spec in inputs
    }
    name = next((name for name in _LABELS if name in raw.arrays), None)
    if name is not None:
        labels = raw.arrays[name]
        if labels.dtype.kind not in "iu":
            raise RecipeError(f"{name} of the data are {labels.dtype}, wanted whole numbers")
        columns[LABELS] = torch.from_numpy(labels.astype(np.int64))
    return columns


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Rows of several parts one after the other, padded to one length."""
    if len(parts) == 1:
        return dict(parts[0])
    first, second = parts
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))[0]
        raise RecipeError(f"{odd!r} is only in one of training data and held-out data")
    return {name: torch.cat(_level(name, first[name], second[name])) for name in first}


def _level(name: str, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    if one.shape[1:] == two.shape[1:]:
        return one, two
    if one.dim() != 2 or two.dim() != 2:
        raise RecipeError(
            f"rows of {name!r} have shape {list(one.shape[1:])} in one file and "
            f"{list(two.shape[1:])} in the other"
        )
    width = max(one.shape[1], two.shape[1])
    fill = -100 if name == LABELS else 0
    pad = torch.nn.functional.pad
    return pad(one, (0, width - one.shape[1]), value=fill), pad(
        two, (0, width - two.shape[1]), value=fill
    )


def _digest(columns: Mapping[str, Tensor]) -> str:
    """Of the content, in the order of its rows; what was read from where does not matter."""
    found = hashlib.sha256()
    for name, column in sorted(columns.items()):
        found.update(f"{name} {column.dtype} {list(column.shape)}\0".encode())
        found.update(column.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
