"""The safetensors header, read strictly.

Format (https://huggingface.co/docs/safetensors): 8 bytes, the header's length N as a
little-endian unsigned integer; N bytes of UTF-8 JSON, padded with spaces; then the data, to the
end of the file. Each tensor names its ``dtype``, ``shape`` and ``data_offsets``, which count from
the first byte of the data. Tensors tile the data: no overlap, no hole, nothing behind the last.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.checkpoint.pickles import looks_pickled, pickle_error
from toolkit.errors import CheckpointError

__all__ = ["DTYPE_BITS", "MAX_HEADER_BYTES", "Header", "TensorEntry", "read_header", "shown"]

# The limit of the reference implementation: a header of this size names about a million tensors.
MAX_HEADER_BYTES = 100_000_000
# Above this a size could not be addressed, and products of sizes need not be formed.
MAX_DIMENSION = 2**63 - 1
MAX_RANK = 64

# Bits of one element; the four- and six-bit types are packed.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_LFS_POINTER = b"version https://git-lfs"
_TENSOR_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        name: Its key in the file.
        dtype: The safetensors name, a key of ``DTYPE_BITS``.
        shape: Sizes; empty for a scalar.
        start: Absolute offset of its first byte in the file.
        stop: Absolute offset behind its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """Everything a safetensors file says about itself.

    Attributes:
        path: The file.
        entries: Tensors by name, in the order of their bytes.
        metadata: The free-form ``__metadata__`` strings.
    """

    path: Path
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and validate the header of a safetensors file; the data is not touched.

    Raises:
        CheckpointError: If the file cannot be read or breaks the format in any way; the message
            names the file, the tensor, what was found and what was wanted.
    """
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            text = _header_bytes(path, file, size)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot read {path}: {reason}") from error
    document = _parse(path, text)
    metadata = _metadata(path, document.pop("__metadata__", {}))
    base = 8 + len(text)
    entries = [_entry(path, name, value, base) for name, value in document.items()]
    # An empty tensor sorts in front of the one that starts where it ends.
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_tiling(path, entries, base, size)
    return Header(path, {entry.name: entry for entry in entries}, metadata)


def shown(text: object) -> str:
    """A value from a file, on one line and short enough for a message."""
    quoted = ascii(text) if isinstance(text, str) and not text.isprintable() else repr(text)
    return quoted if len(quoted) <= 120 else f"{quoted[:100]}… ({len(quoted):,} characters)"


def _open_regular(path: Path) -> BinaryIO:
    # A pipe or a device would block or never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path} is not a regular file, and a safetensors file was wanted")
    return path.open("rb")


def _header_bytes(path: Path, file: BinaryIO, size: int) -> bytes:
    prefix = file.read(64)
    if looks_pickled(prefix):
        raise pickle_error(path)
    if prefix.startswith(_LFS_POINTER):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights themselves",
            hint="fetch them with: git lfs pull",
        )
    if size < 8:
        raise CheckpointError(
            f"{path} is truncated: {size} bytes, and a safetensors file starts with 8 bytes of "
            "header length"
        )
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: header length {length:,} is over the limit of {MAX_HEADER_BYTES:,} bytes",
            hint="the file is damaged or is not safetensors",
        )
    if length > size - 8:
        raise CheckpointError(
            f"{path} is truncated: the header takes {length:,} bytes and {size - 8:,} follow its "
            "length"
        )
    file.seek(8)
    return file.read(length)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise CheckpointError(
            f"{path}: header starts with {shown(text[:8])}, and a JSON object was wanted",
            hint="the file is damaged or is not safetensors",
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            repeated = _first_repeated(name for name, _ in pairs)
            raise CheckpointError(f"{path}: header has the key {shown(repeated)} twice")
        return mapping

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: header is not valid JSON: {error}") from error
    assert isinstance(document, dict)  # it starts with a brace
    return document


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name is repeated")


def _is_text(value: Any) -> bool:
    # JSON escapes can spell lone surrogates, which no encoder would write out again.
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _metadata(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(map(_is_text, (*value, *value.values()))):
        raise CheckpointError(
            f"{path}: __metadata__ is {shown(value)}, and a map of strings to strings was wanted"
        )
    return value


def _entry(path: Path, name: str, value: Any, base: int) -> TensorEntry:
    where = f"{path}: tensor {shown(name)}"
    if not _is_text(name):
        raise CheckpointError(f"{where} has a name that is not valid Unicode")
    if not isinstance(value, dict) or set(value) != _TENSOR_KEYS:
        found = ", ".join(map(shown, value)) if isinstance(value, dict) else shown(value)
        raise CheckpointError(
            f"{where} has {found or 'no keys'}, and exactly dtype, shape and data_offsets were "
            "wanted"
        )
    dtype = value["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CheckpointError(
            f"{where} has unknown dtype {shown(dtype)}", hint="one of " + ", ".join(DTYPE_BITS)
        )
    shape = _shape(where, value["shape"])
    start, stop = _offsets(where, value["data_offsets"])
    wanted, odd_bits = divmod(math.prod(shape) * DTYPE_BITS[dtype], 8)
    if odd_bits:
        raise CheckpointError(
            f"{where}: {dtype} of shape {shown(list(shape))} does not fill whole bytes"
        )
    if stop - start != wanted:
        raise CheckpointError(
            f"{where} spans {stop - start:,} bytes, and {dtype} of shape {shown(list(shape))} "
            f"takes {wanted:,}"
        )
    return TensorEntry(name, dtype, shape, base + start, base + stop)


def _is_size(value: Any) -> bool:
    # bool is an int in Python, and true is not a size.
    return type(value) is int and 0 <= value <= MAX_DIMENSION


def _shape(where: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(map(_is_size, value)):
        raise CheckpointError(f"{where} has shape {shown(value)}, and sizes >= 0 were wanted")
    if len(value) > MAX_RANK:
        raise CheckpointError(f"{where} has {len(value)} dimensions, and {MAX_RANK} are the limit")
    return tuple(value)


def _offsets(where: str, value: Any) -> tuple[int, int]:
    valid = isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))
    if not valid or value[0] > value[1]:
        raise CheckpointError(
            f"{where} has data_offsets {shown(value)}, and [start, stop] with 0 <= start <= stop "
            "was wanted"
        )
    return value[0], value[1]


def _check_tiling(path: Path, entries: list[TensorEntry], base: int, size: int) -> None:
    end, before = base, "the header"
    for entry in entries:
        where = f"{path}: tensor {shown(entry.name)}"
        if entry.stop > size:
            raise CheckpointError(
                f"{where} ends at byte {entry.stop:,}, and the file has {size:,} (truncated?)"
            )
        if entry.start < end:
            raise CheckpointError(
                f"{where} starts at byte {entry.start:,} and overlaps {before}, which ends at "
                f"{end:,}"
            )
        if entry.start > end:
            raise CheckpointError(
                f"{where} starts at byte {entry.start:,}, leaving a hole of "
                f"{entry.start - end:,} bytes behind {before}"
            )
        end, before = entry.stop, shown(entry.name)
    if end < size:
        raise CheckpointError(f"{path} has {size - end:,} bytes behind its last tensor")
