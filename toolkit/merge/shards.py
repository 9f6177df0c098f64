"""The files of a sharded checkpoint: laid out up front, written at any place, hashed in order."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import MergeError
from toolkit.merge.plan import OutputTensor
from toolkit.merge.tensors import FileSink

__all__ = ["INDEX", "Shard", "index", "lay_out"]

INDEX = "model.safetensors.index.json"
_STEP = 1 << 20


@dataclass
class Shard:
    """One output file.

    Attributes:
        file: Its name in the output folder.
        outputs: Its tensors, in the order of their bytes.
        header: Length and JSON, as the file begins.
    """

    file: str
    outputs: Sequence[OutputTensor]
    header: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        self._starts = []
        for output in self.outputs:
            stop = position + output.nbytes
            entries[output.name] = {
                "dtype": output.dtype,
                "shape": list(output.shape),
                "data_offsets": [position, stop],
            }
            self._starts.append(position)
            position = stop
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.header = len(text).to_bytes(8, "little") + text
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._done: set[int] = set()
        self._digest = hashlib.sha256(self.header)
        self._hashed = 0
        self._descriptor: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(output.nbytes for output in self.outputs)

    def sink(self, folder: Path, number: int) -> FileSink:
        """Where one tensor goes; the first call makes the file.

        Raises:
            MergeError: If the file cannot be made, or the disk has no room for it.
        """
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._create(folder / self.file)
        return FileSink(self._descriptor, len(self.header) + self._starts[number])

    def _create(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.posix_fallocate(descriptor, 0, self.nbytes)
            os.pwrite(descriptor, self.header, 0)
        except OSError as error:
            raise MergeError(
                f"cannot write {self.nbytes:,} bytes to {path.name}: {error.strerror}",
                hint="the output needs as much space as one model",
            ) from error
        return descriptor

    def finish(self, number: int) -> bool:
        """Note that a tensor is written, and hash what is complete; True once all is hashed.

        The hash needs the bytes in order. Whoever finishes a tensor that is next in line does it,
        so that it is shared by the threads and done almost with the last tensor.
        """
        with self._lock:
            self._done.add(number)
        while self._hashing.acquire(blocking=False):
            try:
                self._hash_ready()
                if self._hashed == len(self.outputs):
                    self._hashed += 1  # only one thread sees the end
                    return True
            finally:
                self._hashing.release()
            # Another may have finished the next tensor after we looked and found us hashing.
            if self._hashed not in self._done:
                break
        return False

    def _hash_ready(self) -> None:
        while self._hashed in self._done:
            output = self.outputs[self._hashed]
            self._hash_range(len(self.header) + self._starts[self._hashed], output.nbytes)
            self._hashed += 1

    def _hash_range(self, start: int, count: int) -> None:
        assert self._descriptor is not None
        for position in range(start, start + count, _STEP):
            size = min(_STEP, start + count - position)
            self._digest.update(os.pread(self._descriptor, size, position))

    def close(self) -> None:
        """Close the file, finished or not."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    @property
    def sha256(self) -> str:
        """The hash, once all is written."""
        return self._digest.hexdigest()


def lay_out(shards: Sequence[Sequence[OutputTensor]]) -> list[Shard]:
    """Name the files as transformers does."""
    if len(shards) == 1:
        return [Shard("model.safetensors", shards[0])]
    total = len(shards)
    return [
        Shard(f"model-{n:05d}-of-{total:05d}.safetensors", outputs)
        for n, outputs in enumerate(shards, 1)
    ]


def index(shards: Sequence[Shard]) -> Mapping[str, Any]:
    """``model.safetensors.index.json``: the file of every tensor."""
    return {
        "metadata": {"total_size": sum(o.nbytes for s in shards for o in s.outputs)},
        "weight_map": {output.name: shard.file for shard in shards for output in shard.outputs},
    }
