"""What students learn from, as files hold it: records of text or tokens, or arrays of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.bundle import hash_file
from toolkit.checkpoint import open_checkpoint
from toolkit.errors import CapabilityError, RecipeError

__all__ = ["Raw", "read_raw"]

_Array = npt.NDArray[Any]

_KINDS = ".jsonl, .txt, .npz, .safetensors or a folder that datasets wrote with save_to_disk"
_MAX_TEXT_BYTES = 1 << 31
_HELD = ("validation", "test")


@dataclass(frozen=True)
class Raw:
    """The content of a file; one of ``records`` and ``arrays`` is set.

    Attributes:
        digest: SHA-256 of the files.
        records: Mappings, one for an example or a document.
        arrays: Columns by name, all with as many rows.
        held: Another part that came with it, which is not to be trained on.
    """

    digest: str
    records: Sequence[Mapping[str, Any]] | None = None
    arrays: Mapping[str, _Array] | None = None
    held: Raw | None = None

    def __len__(self) -> int:
        """Records or rows."""
        if self.records is not None:
            return len(self.records)
        assert self.arrays is not None
        return len(next(iter(self.arrays.values())))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, or of the first record's keys."""
        if self.arrays is not None:
            return tuple(self.arrays)
        return tuple(self.records[0]) if self.records else ()


def read_raw(path: Path) -> Raw:
    """Read a data file, or a ``datasets`` folder, by its name.

    Raises:
        RecipeError: If there is no such file, or it is of another kind, or it is empty.
        CheckpointError: If a ``.safetensors`` file is damaged.
    """
    if path.is_dir():
        found = _datasets(path)
    elif not path.is_file():
        raise RecipeError(f"there is no data in {path}", hint=f"wanted {_KINDS}")
    elif path.suffix in {".jsonl", ".txt"}:
        found = Raw(hash_file(path).sha256, records=_records(path))
    elif path.suffix in {".npz", ".safetensors"}:
        found = Raw(hash_file(path).sha256, arrays=_arrays(path))
    else:
        raise RecipeError(f"{path.name} is no data that can be read", hint=f"wanted {_KINDS}")
    if not len(found):
        raise RecipeError(f"{path} is empty")
    return found


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise RecipeError(f"{path} has more than {_MAX_TEXT_BYTES:,} bytes",
                              hint="datasets folders may be larger")  # fmt: skip
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: byte {error.start}") from error
    if path.suffix == ".txt":
        return [{"text": content}] if content.strip() else []
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(record, dict):
            raise RecipeError(f"{path}, line {number}: found {line[:40]!r}, wanted {{…}}")
        found.append(record)
    return found


def _arrays(path: Path) -> dict[str, _Array]:
    if path.suffix == ".safetensors":
        checkpoint = open_checkpoint(path)
        arrays = {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
    else:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, AttributeError) as error:
            raise RecipeError(f"{path} is no .npz of plain arrays: {error}") from error
    return _even(str(path), arrays)


def _even(where: str, arrays: dict[str, _Array]) -> dict[str, _Array]:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not arrays or len(set(counts.values())) != 1:
        raise RecipeError(f"{where} holds different numbers of rows: {counts}",
                          hint="one array for each input, and labels")  # fmt: skip
    return arrays


def _datasets(folder: Path) -> Raw:
    try:
        import datasets  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError as error:
        raise CapabilityError(
            "a datasets folder needs the datasets package, which is not installed",
            hint="pip install 'ensemble-to-engine[distill]'",
        ) from error
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{folder} is no folder that datasets wrote: {str(error).splitlines()[0]}",
            hint=f"wanted {_KINDS}",
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        return _dataset(folder, found)
    names = [name for name in ("train", *_HELD) if name in found]
    if "train" not in names:
        raise RecipeError(f"{folder} has the parts {', '.join(found)}, and none called train")
    held = next((name for name in _HELD if name in names), None)
    train = _dataset(folder / "train", found["train"])
    if held is None:
        return train
    return Raw(train.digest, train.records, train.arrays, _dataset(folder / held, found[held]))


def _dataset(folder: Path, found: Any) -> Raw:
    """Columns of numbers of one shape as arrays, else records."""
    digest = "".join(hash_file(file).sha256 for file in sorted(folder.glob("*.arrow")))
    columns: dict[str, _Array] = {}
    for name in found.column_names:
        try:
            array = np.asarray(found[name][:])
        except ValueError:  # rows of different lengths
            return Raw(digest, records=[dict(row) for row in found])
        if array.dtype.kind not in "iufb":
            return Raw(digest, records=[dict(row) for row in found])
        columns[name] = array
    return Raw(digest, arrays=_even(str(folder), columns))
