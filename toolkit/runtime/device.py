"""Memory and a stream of a GPU, through PyTorch, for engines that take addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from toolkit.runtime.base import Array

__all__ = ["Buffer", "CudaDevice", "Device"]


class Buffer(Protocol):
    """Bytes on a device."""

    @property
    def address(self) -> int:
        """Where they begin."""

    @property
    def nbytes(self) -> int:
        """How many there are."""

    def write(self, array: Array) -> None:
        """Copy an array of at most that size to the device."""

    def read(self, nbytes: int) -> bytes:
        """Copy the first bytes back, once everything before has run."""


class Device(Protocol):
    """Where an engine runs."""

    @property
    def stream(self) -> int:
        """The handle of the stream that everything here is put on."""

    def buffer(self, nbytes: int) -> Buffer:
        """New bytes; their content is nothing yet."""

    def synchronize(self) -> None:
        """Wait for everything that was put on the stream."""

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """What ``call`` puts on the stream as a CUDA graph; the result replays it.

        Raises:
            RuntimeError: If it does something that a graph cannot hold.
        """


class CudaDevice:
    """The current CUDA device of PyTorch, with a stream of its own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @property
    def stream(self) -> int:
        """The handle of the stream that everything here is put on."""
        return int(self._stream.cuda_stream)

    def buffer(self, nbytes: int) -> Buffer:
        """New bytes; at least one, because an engine takes no null for an empty tensor."""
        with torch.cuda.stream(self._stream):
            return _CudaBuffer(
                torch.empty(max(nbytes, 1), dtype=torch.uint8, device="cuda"), self._stream
            )

    def synchronize(self) -> None:
        """Wait for everything that was put on the stream."""
        self._stream.synchronize()

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of ``call``, replayed on this stream.

        Raises:
            RuntimeError: If PyTorch or TensorRT cannot capture it.
        """
        graph = torch.cuda.CUDAGraph()
        self._stream.synchronize()
        with torch.cuda.graph(graph, stream=self._stream):
            call()

        def replay() -> None:
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay


class _CudaBuffer:
    def __init__(self, tensor: torch.Tensor, stream: torch.cuda.Stream) -> None:
        self._tensor = tensor
        self._stream = stream

    @property
    def address(self) -> int:
        return self._tensor.data_ptr()

    @property
    def nbytes(self) -> int:
        return self._tensor.numel()

    def write(self, array: Array) -> None:
        # A copy: PyTorch takes no array that cannot be written, and the caller may change his.
        flat = np.frombuffer(array.tobytes(), dtype=np.uint8).copy()
        with torch.cuda.stream(self._stream):
            self._tensor[: flat.size].copy_(torch.from_numpy(flat))

    def read(self, nbytes: int) -> bytes:
        with torch.cuda.stream(self._stream):
            return self._tensor[:nbytes].cpu().numpy().tobytes()
