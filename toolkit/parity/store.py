"""Keeps the reference's outputs until every candidate has been compared with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OutputStore"]

_Key = tuple[int, str]


class OutputStore:
    """Arrays by (case, output): in memory up to a limit, then in a temporary folder.

    A context manager; leaving it deletes the folder.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._room = memory_bytes
        self._arrays: dict[_Key, npt.NDArray[Any]] = {}
        self._files: dict[_Key, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> OutputStore:
        """Nothing is made until the memory is full."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Forget every array and delete the folder."""
        self._arrays.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __setitem__(self, key: _Key, array: npt.NDArray[Any]) -> None:
        """Keep a copy: a runner may use its buffers again."""
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._arrays[key] = np.array(array)
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="toolkit-parity-")
        path = Path(self._folder.name) / f"{len(self._files)}.npy"
        np.save(path, array, allow_pickle=False)
        self._files[key] = path

    def __getitem__(self, key: _Key) -> npt.NDArray[Any]:
        """The array, memory-mapped if it is on disk."""
        if key in self._arrays:
            return self._arrays[key]
        array: npt.NDArray[Any] = np.load(self._files[key], mmap_mode="r", allow_pickle=False)
        return array

    def __contains__(self, key: object) -> bool:
        """Whether there is such an array."""
        return key in self._arrays or key in self._files

    def case(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """Every array of a case by name, in the order they came."""
        names = {name: None for case, name in (*self._arrays, *self._files) if case == index}
        return {name: self[index, name] for name in names}

    @property
    def spilled(self) -> int:
        """How many arrays are on disk."""
        return len(self._files)
