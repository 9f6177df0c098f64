"""Search a checkpoint for NaN and infinity, by bit pattern, in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toolkit.checkpoint.folder import Checkpoint
from toolkit.checkpoint.header import TensorEntry, shown
from toolkit.errors import CheckpointError

__all__ = ["CHUNK_BYTES", "check_finite"]

# A chunk, its masked copy and the comparison stay in the second-level cache together.
CHUNK_BYTES = 1 << 20

Bits = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class _Pattern:
    """How a format spells what is not finite.

    ``bits & mask == value`` is NaN or infinity, and of those ``bits & ~sign == inf`` is infinity;
    ``inf`` is None for formats without one.
    """

    kind: type[np.unsignedinteger]
    mask: int
    value: int
    inf: int | None
    sign: int


# IEEE 754 formats have an exponent of ones. The 8-bit ones follow OCP's "8-bit Floating Point
# Specification": E4M3 keeps one NaN per sign and no infinity. FNUZ formats have a single NaN.
_PATTERNS: Mapping[str, _Pattern] = {
    "F64": _Pattern(np.uint64, 0x7FF << 52, 0x7FF << 52, 0x7FF << 52, 1 << 63),
    "F32": _Pattern(np.uint32, 0x7F800000, 0x7F800000, 0x7F800000, 1 << 31),
    "C64": _Pattern(np.uint32, 0x7F800000, 0x7F800000, 0x7F800000, 1 << 31),
    "F16": _Pattern(np.uint16, 0x7C00, 0x7C00, 0x7C00, 1 << 15),
    "BF16": _Pattern(np.uint16, 0x7F80, 0x7F80, 0x7F80, 1 << 15),
    "F8_E5M2": _Pattern(np.uint8, 0x7C, 0x7C, 0x7C, 0x80),
    "F8_E4M3": _Pattern(np.uint8, 0x7F, 0x7F, None, 0x80),
    "F8_E8M0": _Pattern(np.uint8, 0xFF, 0xFF, None, 0),
    "F8_E4M3FNUZ": _Pattern(np.uint8, 0xFF, 0x80, None, 0),
    "F8_E5M2FNUZ": _Pattern(np.uint8, 0xFF, 0x80, None, 0),
}


def check_finite(
    checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None
) -> None:
    """Read every floating-point tensor and refuse the first that holds NaN or infinity.

    Args:
        checkpoint: The weights to search; memory use does not depend on their size.
        progress: Called with bytes done and bytes in all, after each chunk of about 1 MB.

    Raises:
        CheckpointError: Naming the tensor, the counts of NaN and infinity, and the first index.
    """
    located = [item for item in checkpoint.tensors.values() if item[1].dtype in _PATTERNS]
    total = sum(entry.nbytes for _, entry in located)
    done = 0
    for file, entry in located:
        search = _Search(entry)
        for chunk in _chunks(file, entry):
            search.add(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        search.raise_if_found(file)


class _Search:
    """Counts what is not finite in one tensor, chunk by chunk."""

    def __init__(self, entry: TensorEntry) -> None:
        self.entry = entry
        self.pattern = _PATTERNS[entry.dtype]
        self.position = 0
        self.first: int | None = None
        self.nans = 0
        self.infs = 0

    def add(self, chunk: memoryview) -> None:
        pattern = self.pattern
        bits: Bits = np.frombuffer(chunk, pattern.kind)
        bad = (bits & pattern.kind(pattern.mask)) == pattern.kind(pattern.value)
        if bad.any():
            self._count(bits, bad)
        self.position += bits.size

    def _count(self, bits: Bits, bad: npt.NDArray[np.bool_]) -> None:
        if self.first is None:
            self.first = self.position + int(bad.argmax())
        infs = 0
        if self.pattern.inf is not None:
            magnitude = bits[bad] & ~self.pattern.kind(self.pattern.sign)
            infs = int(np.count_nonzero(magnitude == self.pattern.kind(self.pattern.inf)))
        self.infs += infs
        self.nans += int(np.count_nonzero(bad)) - infs

    def raise_if_found(self, file: Path) -> None:
        if self.first is None:
            return
        # A complex element is two floats.
        flat = self.first // 2 if self.entry.dtype == "C64" else self.first
        index = [int(i) for i in np.unravel_index(flat, self.entry.shape)]
        raise CheckpointError(
            f"{file}: tensor {shown(self.entry.name)} holds {self.nans:,} NaN and "
            f"{self.infs:,} Inf among {self.entry.elements:,} values, the first at {index}; "
            "finite weights were wanted",
            hint="training diverged or the file is damaged; use an earlier checkpoint",
        )


def _chunks(file: Path, entry: TensorEntry) -> Iterator[memoryview]:
    """The tensor's bytes; each chunk is overwritten by the next."""
    buffer = memoryview(bytearray(min(CHUNK_BYTES, entry.nbytes)))
    try:
        with file.open("rb", buffering=0) as stream:
            stream.seek(entry.start)
            left = entry.nbytes
            while left:
                chunk = buffer[: min(left, CHUNK_BYTES)]
                _fill(stream.readinto, chunk)
                left -= len(chunk)
                yield chunk
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot read {file}: {reason}") from error


def _fill(readinto: Callable[[memoryview], int], chunk: memoryview) -> None:
    while len(chunk):
        count = readinto(chunk)
        if not count:
            raise OSError("it became shorter while it was read")
        chunk = chunk[count:]
