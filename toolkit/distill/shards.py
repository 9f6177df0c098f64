"""Tensors written once, in files that go on where a run was cut off, and read by mapping them.

A folder holds ``index.json``, which says what the content depends on, and ``00000.safetensors``
and so on. Every file is written beside its place and renamed, so a file that is there is whole.
The folder is complete when its index says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from toolkit.checkpoint import read_header
from toolkit.errors import BundleError, IntegrityError
from toolkit.progress import Progress, silent

__all__ = ["Array", "digest", "map_shards", "write_shards"]

Array = npt.NDArray[Any]

_INDEX, _FORMAT = "index.json", 1
_MOST = 10_000_000  # files
_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


def digest(value: Any) -> str:
    """A hash of JSON values that does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_shards(
    folder: Path,
    depends: Mapping[str, Any],
    layout: Sequence[int],
    make: Callable[[int], Mapping[str, Array]],
    progress: Progress = silent,
) -> bool:
    """Write the files that are missing.

    Args:
        folder: Where; made if it does not exist.
        depends: What the content depends on, by what a person calls it; JSON values.
        layout: How many files there are and, with that, whatever decides what is in which. A
            folder that was begun with another is begun anew; a complete one stays.
        make: Gives the arrays of a file.
        progress: Told of every file.

    Returns:
        Whether anything had to be written.

    Raises:
        IntegrityError: If the folder was written from something else.
        BundleError: If it holds other files, or cannot be written.
    """
    known, count = _known(folder), layout[0]
    if known is None:
        _begin(folder)
    else:
        _check_depends(folder, known, depends)
        if known["complete"]:
            return False
        if known["layout"] != list(layout):
            _clear(folder, known["files"])
    if known is None or known["layout"] != list(layout):
        _write_index(folder, depends, layout, complete=False)
    for number in range(count):
        progress("write targets", number, count)
        path = folder / _name(number)
        if not path.exists():
            arrays = {name: np.ascontiguousarray(one) for name, one in make(number).items()}
            _put(path, save(arrays))
    progress("write targets", count, count)
    _write_index(folder, depends, layout, complete=True)
    return True


def map_shards(folder: Path, depends: Mapping[str, Any]) -> list[dict[str, Array]]:
    """The arrays of every file, mapped: nothing is read before it is looked at.

    Raises:
        IntegrityError: If the folder was written from something else, or a file was changed.
        BundleError: If it is none of ours, or not complete.
    """
    known = _known(folder)
    if known is None:
        raise BundleError(f"{folder} holds no kept targets", hint="write them first")
    _check_depends(folder, known, depends)
    if not known["complete"]:
        raise BundleError(
            f"{folder} is not complete: writing it was cut off",
            hint="write it again with the same settings; it goes on where it stopped",
        )
    return [_mapped(folder / _name(number)) for number in range(known["files"])]


def _known(folder: Path) -> dict[str, Any] | None:
    path = folder / _INDEX
    if not path.exists():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        complete, files, written = known["complete"], known["files"], known["depends"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} cannot be read as the index of kept targets") from error
    sound = isinstance(complete, bool) and type(files) is int and isinstance(written, dict)
    sound = sound and "layout" in known and 0 <= files < _MOST
    if not sound or known.get("format") != _FORMAT:
        raise BundleError(f"{path} is of another format than is written here")
    return dict(known)


def _check_depends(folder: Path, known: Mapping[str, Any], depends: Mapping[str, Any]) -> None:
    written, wanted = known["depends"], _hashed(depends)
    other = [name for name in wanted if written.get(name) != wanted[name]]
    if other:
        raise IntegrityError(
            f"the targets in {folder} were written from other {', other '.join(other)}",
            hint="name another folder, or remove this one and write it again",
        )


def _hashed(depends: Mapping[str, Any]) -> dict[str, str]:
    return {name: digest(value) for name, value in depends.items()}


def _begin(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BundleError(f"cannot write targets to {folder}: {error.strerror}") from error
    if others:
        raise BundleError(
            f"{folder} holds other files, first {others[0]!r}, and no index of targets",
            hint="name an empty folder, or one that does not exist",
        )


def _clear(folder: Path, files: int) -> None:
    for number in range(files):
        (folder / _name(number)).unlink(missing_ok=True)


def _write_index(
    folder: Path, depends: Mapping[str, Any], layout: Sequence[int], *, complete: bool
) -> None:
    content = {
        "format": _FORMAT,
        "complete": complete,
        "files": layout[0],
        "layout": list(layout),
        "depends": _hashed(depends),
        "said": dict(depends),
    }
    _put(folder / _INDEX, json.dumps(content, indent=2, ensure_ascii=False).encode())


def _put(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BundleError(
            f"cannot write {path.name}: {error.strerror}",
            hint="what was written stays; the same command goes on from there",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _mapped(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise IntegrityError(
            f"{path} is missing, and the index says that the targets are complete",
            hint="remove the folder and write it again",
        )
    header = read_header(path)
    found: dict[str, Array] = {}
    for name, entry in header.entries.items():
        if entry.dtype not in _DTYPES:
            raise IntegrityError(f"{path}: {name!r} is {entry.dtype}, which is not written here")
        dtype = np.dtype(_DTYPES[entry.dtype])
        if not entry.nbytes:
            found[name] = np.zeros(entry.shape, dtype)
        else:
            found[name] = np.memmap(path, dtype, "r", entry.start, entry.shape)
    return found


def _name(number: int) -> str:
    return f"{number:05}.safetensors"
