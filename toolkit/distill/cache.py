"""Teachers' targets kept on disk, so that training needs no teacher in memory.

Of every row that counts the most likely classes and their log probabilities are kept, and what is
left for all others (``toolkit.distill.compressing``); of embeddings the vectors. Rows of an example
stand one behind the other, so that a batch needs one range of the file for each example, whatever
it is padded to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.distill.compressing import Compression, compress
from toolkit.distill.rows import row_mask
from toolkit.distill.shards import Array, map_shards, write_shards
from toolkit.distill.types import INDEX, Batch, Targets, Task, Teacher
from toolkit.errors import IntegrityError, RecipeError
from toolkit.progress import Progress, silent

__all__ = ["CacheKey", "CachedTeacher", "layout", "write_cache"]

_PER_FILE = 16  # batches
_HIDDEN = "hidden."


@dataclass(frozen=True)
class CacheKey:
    """What kept targets depend on; another of any of them, and they are refused.

    Attributes:
        teachers: Their definition: the tree, and hashes of their files.
        data: A digest of the examples, in their order.
        options: What else: task, target, the length texts are cut to.
    """

    teachers: Mapping[str, Any]
    data: str
    options: Mapping[str, Any]

    def depends(self, compression: Compression) -> dict[str, Any]:
        """By what a person calls it."""
        return {
            "teachers": dict(self.teachers),
            "data": self.data,
            "options": dict(self.options),
            "compression": asdict(compression),
        }


def write_cache(  # noqa: PLR0913  (each is a different thing, and all are needed)
    folder: Path,
    teacher: Teacher,
    batches: Sequence[Batch],
    key: CacheKey,
    *,
    compression: Compression | None = None,
    per_file: int = _PER_FILE,
    progress: Progress = silent,
) -> bool:
    """Run the teachers over all batches once and keep what they say.

    A run that was cut off goes on with the first file that is missing.

    Args:
        folder: Where.
        teacher: The teachers; not run if the folder is complete.
        batches: The same every time, with ``index``.
        key: What the result depends on.
        compression: How much is kept.
        per_file: Batches in a file.
        progress: Told of every file.

    Returns:
        Whether anything was written.

    Raises:
        IntegrityError: If the folder was written from something else.
        BundleError: If it cannot be written.
        RecipeError: If what the teachers say cannot be kept.
    """
    kept = compression or Compression()

    def make(number: int) -> Mapping[str, Array]:
        first = number * per_file
        part = [batches[i] for i in range(first, min(first + per_file, len(batches)))]
        return _joined([_kept(teacher.targets(batch), batch, kept) for batch in part])

    return write_shards(folder, key.depends(kept), layout(batches, per_file), make, progress)


def layout(batches: Sequence[Batch], per_file: int) -> tuple[int, int, int]:
    """Files in all, and the two numbers that say which rows are in which."""
    rows = len(batches[0][INDEX]) if len(batches) else 0
    return -(-len(batches) // per_file), per_file, rows


def _kept(targets: Targets, batch: Batch, how: Compression) -> dict[str, Array]:
    """Arrays of one batch: ``examples`` and ``rows`` of each, and what is kept of the rows."""
    found: dict[str, Array] = {"examples": batch[INDEX].cpu().numpy().astype(np.int64)}
    count = len(found["examples"])
    for name, value in targets.hidden.items():
        if value.dim() != 2 or len(value) != count:
            raise RecipeError(
                f"{name!r} has shape {list(value.shape)}: only one vector of each example is kept "
                "on disk",
                hint="hidden states and attention are matched with the teachers in memory",
            )
        found[_HIDDEN + name] = value.cpu().float().numpy()
    mask = targets.mask
    found["rows"] = mask.reshape(count, -1).sum(-1).cpu().numpy().astype(np.int64)
    if targets.log_probs is None and not targets.per_teacher:
        return found
    small = compress(targets, how.top_k, how.top_p, how.temperature, how.dtype)
    assert small.ids is not None
    assert small.kept is not None
    assert small.rest is not None
    ids, kept = small.ids[mask].cpu().numpy(), small.kept[mask].cpu().numpy()
    real = ~np.isneginf(kept)
    found["classes"] = real.sum(-1).astype(np.int32)
    found["ids"] = ids[real].astype(np.int32)
    found["kept"] = kept[real].astype(how.dtype)
    found["rest"] = small.rest[mask].cpu().float().numpy()
    return found


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _Place:
    """Where an example stands: its file, its number in it, and its rows there."""

    file: int
    number: int
    start: int
    stop: int


class CachedTeacher:
    """A teacher that reads what was kept.

    Attributes:
        task: Says what rows are.
        compression: How much was kept.
    """

    def __init__(
        self, folder: Path, key: CacheKey, task: Task, compression: Compression | None = None
    ) -> None:
        """Map a folder.

        Raises:
            IntegrityError: If it was written from other teachers, data or options.
            BundleError: If it is not complete.
        """
        self.task: Task = task
        self.compression = compression or Compression()
        self.folder = folder
        self._files = map_shards(folder, key.depends(self.compression))
        for file in self._files:
            _check(folder, file)
        # where the classes of each row begin
        self._starts = [
            np.concatenate(([0], np.cumsum(file["classes"], dtype=np.int64)))
            for file in self._files
            if "classes" in file
        ]
        self._places: dict[int, _Place] = {}
        for number, file in enumerate(self._files):
            ends = np.cumsum(file["rows"])
            for place, example in enumerate(file["examples"].tolist()):
                stop = int(ends[place])
                start = stop - int(file["rows"][place])
                self._places[example] = _Place(number, place, start, stop)

    @property
    def nbytes(self) -> int:
        """Bytes of the kept arrays on disk."""
        return sum(one.nbytes for file in self._files for one in file.values())

    @property
    def rows(self) -> int:
        """Rows that count in all."""
        return sum(int(file["rows"].sum()) for file in self._files)

    def targets(self, batch: Batch) -> Targets:
        """What was kept of the batch's examples, on its device.

        Raises:
            IntegrityError: If an example was not kept, or now has other rows that count.
        """
        places = [self._place(example) for example in batch[INDEX].tolist()]
        mask = row_mask(self.task, batch)
        counts = mask.reshape(len(places), -1).sum(-1).tolist()
        for place, count, example in zip(places, counts, batch[INDEX].tolist(), strict=True):
            if place.stop - place.start != count:
                raise IntegrityError(
                    f"{self.folder} has {place.stop - place.start} rows of example {example}, and "
                    f"{count} are counted now",
                    hint="the batches are not those it was written from",
                )
        device = mask.device
        hidden = {
            name.removeprefix(_HIDDEN): self._vectors(name, places).to(device)
            for name in self._files[0]
            if name.startswith(_HIDDEN)
        }
        if not self._starts:
            return Targets(mask, hidden=hidden)
        ids, kept, rest = self._rows(places)
        return Targets(
            mask,
            ids=_spread(ids, mask, 0),
            kept=_spread(kept, mask, -torch.inf),
            rest=_spread(rest, mask, 0.0),
            hidden=hidden,
            temperature=self.compression.temperature,
        )

    def _place(self, example: int) -> _Place:
        if example not in self._places:
            raise IntegrityError(
                f"{self.folder} has nothing of example {example}",
                hint="the data has more examples than it was written from",
            )
        return self._places[example]

    def _vectors(self, name: str, places: Sequence[_Place]) -> Tensor:
        return torch.from_numpy(np.stack([self._files[p.file][name][p.number] for p in places]))

    def _rows(self, places: Sequence[_Place]) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, log probabilities [n, K] and rests [n] of the rows that count, in order."""
        spans = [(self._files[p.file], self._starts[p.file][p.start : p.stop + 1]) for p in places]
        ids = np.concatenate([file["ids"][span[0] : span[-1]] for file, span in spans])
        kept = np.concatenate([file["kept"][span[0] : span[-1]] for file, span in spans])
        rest = np.concatenate([self._files[p.file]["rest"][p.start : p.stop] for p in places])
        widths = np.concatenate([np.diff(span) for _, span in spans])
        widest = int(widths.max()) if len(widths) else 1
        if len(widths) and int(widths.min()) == widest:
            tables = ids.reshape(-1, widest), kept.reshape(-1, widest)
        else:
            tables = _padded(ids, kept, widths, widest)
        return (
            torch.from_numpy(tables[0].astype(np.int64)),
            torch.from_numpy(tables[1].astype(np.float32)),
            torch.from_numpy(rest),
        )


def _check(folder: Path, file: Mapping[str, Array]) -> None:
    """Refuse files whose arrays do not belong together."""
    sound = {"examples", "rows"} <= set(file) and len(file["examples"]) == len(file["rows"])
    if sound and "classes" in file:
        rows, classes = int(file["rows"].sum()), int(file["classes"].sum())
        sound = {"ids", "kept", "rest"} <= set(file)
        sound = sound and len(file["classes"]) == len(file["rest"]) == rows
        sound = sound and len(file["ids"]) == len(file["kept"]) == classes
    if not sound:
        raise IntegrityError(
            f"a file in {folder} does not hold the targets it says",
            hint="remove the folder and write it again",
        )


def _padded(ids: Array, kept: Array, widths: Array, widest: int) -> tuple[Array, Array]:
    """As tables [n, widest]; empty places repeat the row's first class, with -inf."""
    real = np.arange(widest) < widths[:, None]
    firsts = np.concatenate(([0], np.cumsum(widths)[:-1])).astype(np.int64)
    classes = np.repeat(ids[firsts][:, None], widest, axis=1) if len(widths) else ids.reshape(0, 1)
    logs = np.full(real.shape, -np.inf, np.float32)
    classes[real], logs[real] = ids, kept
    return classes, logs


def _spread(values: Tensor, mask: Tensor, empty: float) -> Tensor:
    """Values of the rows that count in a table of all rows."""
    table = values.new_full((mask.numel(), *values.shape[1:]), empty)
    table[mask.cpu()] = values
    return table.to(mask.device)
