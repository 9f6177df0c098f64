"""A model folder in Hugging Face's layout, or one safetensors file, opened as a checkpoint."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.checkpoint.header import Header, TensorEntry, read_header, shown
from toolkit.checkpoint.pickles import PICKLE_SUFFIXES, pickle_error
from toolkit.errors import CheckpointError

__all__ = ["COMPRESSED", "COMPRESSED_ENDING", "MAX_JSON_BYTES", "Checkpoint", "open_checkpoint"]

COMPRESSED = "toolkit.compressed"
"""In the metadata of a weight file: which tensors have their zeros left out, as a JSON list."""

COMPRESSED_ENDING = ".compressed.safetensors"
"""Of such files in a folder."""

# Configurations take kilobytes and the index of a thousand-tensor model a few megabytes.
MAX_JSON_BYTES = 64 << 20

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Pickles that trainers leave beside the weights, which are not weights.
_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")

# safetensors dtype -> numpy dtype; bfloat16 and what numpy has no name for are read as raw bits.
_NUMPY: Mapping[str, str] = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8",
    "BF16": "<u2",
}  # fmt: skip
_PACKED = frozenset({"F4", "F6_E2M3", "F6_E3M2"})


@dataclass(frozen=True)
class Checkpoint:
    """Weights on disk, with their headers read and their bytes untouched.

    Attributes:
        folder: The model folder, or the folder of a single file.
        config: ``config.json``; empty for a single file.
        files: The weight files, in the order the index first names them.
        tensors: Each tensor's file and entry by name, in file order.
    """

    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, tuple[Path, TensorEntry]]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(entry.nbytes for _, entry in self.tensors.values())

    def read(self, name: str) -> npt.NDArray[Any]:
        """Memory-map one tensor, read-only.

        BF16 comes as its bits in ``uint16``, eight-bit floats as ``uint8``, both in the tensor's
        shape; four- and six-bit types come as the flat packed ``uint8`` bytes.

        Raises:
            CheckpointError: If there is no such tensor or its file has changed on disk.
        """
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.folder} has no tensor {name!r}, but {len(self.tensors)} others"
            )
        file, entry = self.tensors[name]
        dtype = np.dtype(_NUMPY.get(entry.dtype, "u1"))
        shape = (entry.nbytes,) if entry.dtype in _PACKED else entry.shape
        if not entry.nbytes:  # an empty range cannot be mapped
            return np.zeros(shape, dtype)
        try:
            mapped = np.memmap(file, dtype, "r", entry.start, shape)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot map tensor {name!r} of {file}: {error}") from error
        return np.asarray(mapped)


def open_checkpoint(source: Path) -> Checkpoint:
    """Open a model folder (``config.json`` and safetensors) or a single safetensors file.

    Every header is validated, and the index of a sharded model is held against its shards.
    Files must lie in the folder; symbolic links may lead out of it only into the ``blobs`` of
    the same model in a Hugging Face cache, which is how that cache is laid out.

    Raises:
        CheckpointError: If anything is missing, malformed, pickled or outside of the folder.
    """
    try:
        return _open_folder(source) if source.is_dir() else _open_file(source)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot read {error.filename or source}: {reason}") from error


def _open_file(source: Path) -> Checkpoint:
    if not source.exists():
        raise CheckpointError(f"{source} does not exist", hint=_siblings(source))
    if source.suffix in PICKLE_SUFFIXES:
        raise pickle_error(source)
    header = read_header(source)
    if COMPRESSED in header.metadata:
        raise _compressed_error(source)
    return Checkpoint(source.parent, {}, (source,), _located([header]))


def _open_folder(folder: Path) -> Checkpoint:
    _check_config_exists(folder)
    config = _read_json(folder, _CONFIG)
    if (folder / _WEIGHTS).exists():
        headers = [read_header(_inside(folder, _WEIGHTS))]
    elif (folder / _INDEX).exists():
        headers = _read_shards(folder)
    else:
        raise _no_weights(folder)
    files = tuple(header.path for header in headers)
    return Checkpoint(folder, config, files, _located(headers))


def _located(headers: list[Header]) -> dict[str, tuple[Path, TensorEntry]]:
    return {
        name: (header.path, entry) for header in headers for name, entry in header.entries.items()
    }


def _check_config_exists(folder: Path) -> None:
    if not (folder / _CONFIG).exists():
        raise CheckpointError(
            f"{folder} has no {_CONFIG}; it holds {_listing(folder)}",
            hint="a model folder has config.json beside its safetensors, as save_pretrained "
            "writes it; for weights of your own class use the model kind factory",
        )


def _compressed_error(source: Path) -> CheckpointError:
    return CheckpointError(
        f"{source} has its zeros left out, and weights as they are were wanted",
        hint=f"toolkit compress --restore {source} NEW",
    )


def _no_weights(folder: Path) -> CheckpointError:
    if any(folder.glob(f"*{COMPRESSED_ENDING}")):
        return _compressed_error(folder)
    pickles = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in PICKLE_SUFFIXES and not path.name.startswith(_NOT_WEIGHTS)
    )
    if pickles:
        return pickle_error(*pickles)
    hint = ""
    if (folder / "adapter_config.json").exists():
        hint = "this is an adapter (LoRA); merge it into its base model first"
    return CheckpointError(
        f"{folder} has neither {_WEIGHTS} nor {_INDEX}; it holds {_listing(folder)}", hint=hint
    )


def _listing(folder: Path, limit: int = 12) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more if names else "nothing"


def _siblings(source: Path) -> str:
    if not source.parent.is_dir():
        return f"{source.parent} does not exist either"
    return f"{source.parent} holds {_listing(source.parent)}"


def _inside(folder: Path, name: str) -> Path:
    """The path of a file of the folder, refused when it leads out of the folder."""
    if "\0" in name:
        raise CheckpointError(f"{folder} names the file {shown(name)}, which no file can be called")
    path = folder / name
    # realpath, unlike Path.resolve, does not raise on a loop of links; opening it then does.
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if Path(name).is_absolute() or not any(real.is_relative_to(place) for place in allowed):
        raise CheckpointError(
            f"{folder} names the file {shown(name)}, which leads out of the folder to {real}"
        )
    return path


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = _inside(folder, name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for a writer
            raise CheckpointError(f"{path} is not a regular file, and a JSON file was wanted")
        size = status.st_size
        if size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} has {size:,} bytes, over the limit of {MAX_JSON_BYTES:,}"
            )
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {type(value).__name__}, and a JSON object was wanted"
        )
    return value


def _read_shards(folder: Path) -> list[Header]:
    weight_map = _read_json(folder, _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(shard, str) for shard in weight_map.values()
    ):
        raise CheckpointError(
            f"{folder / _INDEX} has the weight_map {shown(weight_map)}, and a map of tensor names "
            "to files was wanted"
        )
    headers: dict[str, Header] = {}
    for shard in dict.fromkeys(weight_map.values()):
        path = _inside(folder, shard)
        if not path.is_file():
            raise CheckpointError(
                f"{folder / _INDEX} names {shown(shard)}, which is missing; the folder holds "
                f"{_listing(folder)}"
            )
        headers[shard] = read_header(path)
    _check_index(folder, weight_map, headers)
    return list(headers.values())


def _check_index(
    folder: Path, weight_map: Mapping[str, str], headers: Mapping[str, Header]
) -> None:
    for name, shard in weight_map.items():
        if name not in headers[shard].entries:
            raise CheckpointError(
                f"{folder / _INDEX} says tensor {shown(name)} is in {shown(shard)}, which does not "
                "have it"
            )
    for shard, header in headers.items():
        for name in header.entries:
            if name not in weight_map:
                raise CheckpointError(
                    f"{header.path} has tensor {shown(name)}, which {_INDEX} does not list"
                )
            if weight_map[name] != shard:
                raise CheckpointError(
                    f"tensor {shown(name)} is in two shards of {folder}: {shown(weight_map[name])} "
                    f"and {shown(shard)}"
                )
