"""Checkpoints with many zeros on disk: smaller, and back as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.checkpoint import (
    COMPRESSED,
    COMPRESSED_ENDING,
    open_checkpoint,
    read_header,
)
from toolkit.errors import CheckpointError
from toolkit.pipeline.checkpoints import copy_beside, new_checkpoint
from toolkit.progress import Progress, silent
from toolkit.sparse import PARTS, compress, compressed_bytes, restore

__all__ = ["StorageReport", "compress_checkpoint", "restore_checkpoint"]

_INDEX = "model.safetensors.index.json"
_PLAIN = ".safetensors"
# What saves less stays as it is.
_WORTH = 0.95

_Metadata = dict[str, str]
_Tensors = dict[str, Tensor]
# A file's tensors in the other form, and the bytes of those that changed over their dense ones.
_Change = Callable[[_Tensors, _Metadata], tuple[_Tensors, dict[str, float]]]


@dataclass(frozen=True)
class StorageReport:
    """What was stored in another form.

    Attributes:
        tensors: Compressed bytes of each tensor over its dense ones, for those that changed.
        before: Bytes of the weight files that were read.
        after: Bytes of those that were written.
    """

    tensors: Mapping[str, float]
    before: int
    after: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def compress_checkpoint(src: Path, out: Path, progress: Progress = silent) -> StorageReport:
    """Write a checkpoint with its zeros left out, a weight file in memory at a time.

    Weight files of a folder get another ending, so that nothing takes it for a model's.

    Args:
        src: A model folder, or a safetensors file.
        out: A folder for a folder, a file for a file; it must not exist.
        progress: Told of every file.

    Raises:
        CheckpointError: If there is no checkpoint, or it has too few zeros to gain anything.
        BundleError: If ``out`` exists or cannot be written.
    """
    files = {
        file: file.name.removesuffix(_PLAIN) + COMPRESSED_ENDING
        for file in open_checkpoint(src).files
    }
    with new_checkpoint(out) as place:
        report, _ = _rewrite(src, place, files, _compressed, progress)
        if not report.tensors:
            raise CheckpointError(
                f"{src} has no tensor that would take less than {_WORTH:.0%} without its zeros",
                hint="toolkit inspect --sparsity says how many zeros there are",
            )
    return report


def restore_checkpoint(src: Path, out: Path, progress: Progress = silent) -> StorageReport:
    """The checkpoint that ``compress_checkpoint`` was given, equal in every bit of every tensor.

    Args:
        src: What it wrote.
        out: A folder for a folder, a file for a file; it must not exist.
        progress: Told of every file.

    Raises:
        CheckpointError: If ``src`` was not written by it, or is damaged.
        BundleError: If ``out`` exists or cannot be written.
    """
    found = sorted(src.glob(f"*{COMPRESSED_ENDING}")) if src.is_dir() else [src]
    if not found or any(COMPRESSED not in read_header(file).metadata for file in found):
        raise CheckpointError(
            f"{src} was not written by toolkit compress", hint="give the folder or the file it made"
        )
    files = {file: file.name.removesuffix(COMPRESSED_ENDING) + _PLAIN for file in found}
    with new_checkpoint(out) as place:
        report, names = _rewrite(src, place, files, _restored, progress)
        if src.is_dir() and len(files) > 1:
            index = {"metadata": {"total_size": report.after}, "weight_map": names}
            (place / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return report


def _rewrite(
    src: Path, out: Path, files: Mapping[Path, str], change: _Change, progress: Progress
) -> tuple[StorageReport, dict[str, str]]:
    """Every file anew, under its new name in a folder, and what lies beside them.

    Gives the file of every tensor too.
    """
    names: dict[str, str] = {}
    ratios: dict[str, float] = {}
    after = 0
    if src.is_dir():
        out.mkdir()
        copy_beside(src, out, {*(file.name for file in files), _INDEX})
    for done, (file, name) in enumerate(files.items()):
        progress("write", done, len(files))
        path = out / name if src.is_dir() else out
        metadata = dict(read_header(file).metadata)
        tensors, changed = change(load_file(file), metadata)
        save_file(tensors, path, metadata=metadata or None)
        names |= dict.fromkeys(tensors, name)
        ratios |= changed
        after += path.stat().st_size
    progress("write", len(files), len(files))
    before = sum(file.stat().st_size for file in files)
    return StorageReport(ratios, before, after), names


def _compressed(tensors: _Tensors, metadata: _Metadata) -> tuple[_Tensors, dict[str, float]]:
    made: _Tensors = {}
    ratios: dict[str, float] = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        ratio = compressed_bytes(tensor) / tensor.nbytes if tensor.dim() and tensor.numel() else 1
        if ratio >= _WORTH:
            made[name] = tensor
            continue
        parts = {f"{name}.{part}": value for part, value in compress(tensor).items()}
        clash = sorted(parts.keys() & (tensors.keys() | made.keys()))
        if clash:
            raise CheckpointError(f"there is a tensor {clash[0]!r}, which {name!r} would need")
        made |= parts
        ratios[name] = round(ratio, 4)
    metadata[COMPRESSED] = json.dumps(sorted(ratios))
    return made, ratios


def _restored(tensors: _Tensors, metadata: _Metadata) -> tuple[_Tensors, dict[str, float]]:
    ratios = {}
    for name in _names(metadata.pop(COMPRESSED)):
        try:
            parts = {part: tensors.pop(f"{name}.{part}") for part in PARTS}
        except KeyError as error:
            raise CheckpointError(f"tensor {error} is missing, a part of {name!r}") from error
        tensors[name] = restore(name, parts)
        taken = sum(part.nbytes for part in parts.values())
        ratios[name] = round(taken / tensors[name].nbytes, 4)
    return tensors, ratios


def _names(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{COMPRESSED} says {text[:60]!r}, wanted a list of tensor names")
    return names
