"""Carrying out a plan: tensors in parallel, each by one thread, chunk by chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import CHUNK_ELEMENTS, Operands, Scratch
from toolkit.merge.plan import OutputTensor
from toolkit.merge.tensors import FLOATS, NoSink, Sink
from toolkit.progress import Progress, silent

__all__ = ["Execution", "Stopped", "likeness"]


class Stopped(Exception):  # noqa: N818  (not an error: another thread has that)
    """Raised inside threads whose work is no longer wanted."""


@dataclass
class Execution:
    """Threads, their memory and the progress of one merge.

    Attributes:
        threads: How many tensors are merged at a time.
        total: Bytes of input in all, for the progress.
        progress: Told the bytes read so far.
        chunk: Most elements of a chunk.
    """

    threads: int
    total: int = 0
    progress: Progress = silent
    chunk: int = CHUNK_ELEMENTS
    done: int = 0
    _told: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _own: threading.local = field(default_factory=threading.local)

    def run(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Run all tasks; the first error, or Ctrl-C, stops the rest and is raised."""
        self._stop.clear()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="merge") as pool:
            futures = [pool.submit(task) for task in tasks]
            try:
                finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        errors = [future.exception() for future in finished]
        real = [error for error in errors if error and not isinstance(error, Stopped)]
        if real:
            raise real[0]

    def merge(self, output: OutputTensor, sink: Sink) -> Findings:
        """Merge one tensor and return what was found, norms and cosines included."""
        operands = self.operands(output, sink)
        findings = output.method(operands)
        if output.dtype in FLOATS:
            findings |= likeness(operands)
        return findings

    def operands(self, output: OutputTensor, sink: Sink | None) -> Operands:
        """The inputs of one tensor, in this thread's memory; only to look at without a sink."""
        if not hasattr(self._own, "scratch"):
            self._own.scratch = Scratch()
        return Operands(
            output.name,
            [source.tensor for source in output.sources],
            [source.model for source in output.sources],
            output.dtype,
            sink or NoSink(),
            output.method.relative,
            self.chunk,
            self._advance if sink else self._check,
            self._own.scratch,
        )

    def exclusive(self) -> AbstractContextManager[Any]:
        """The lock of what threads share."""
        return self._lock

    def _check(self, _count: int = 0) -> None:
        if self._stop.is_set():
            raise Stopped

    def _advance(self, count: int) -> None:
        self._check()
        with self._lock:
            self.done += count
            # A display is redrawn by this, and chunks come by the thousand.
            if self.done - self._told >= self.total // 500 or self.done >= self.total:
                self._told = self.done
                self.progress("merging", self.done, self.total)


def likeness(operands: Operands) -> Findings:
    """Norms and cosines of the models, or of their task vectors where there is a base.

    Of tensors of more than a million elements every sixteenth block of 1,024 is looked at, unless
    the method needed all; norms are scaled to the whole.
    """
    origin = int(operands.relative)
    products = operands.symmetric()
    norms = np.sqrt(np.diag(products))
    safe = np.where(norms > 0, norms, 1.0)
    cosines = products / np.outer(safe, safe)
    scale = operands.scale
    found: Findings = {"norms": [_short(n * scale) for n in norms[origin:]]}
    if origin:
        found["base_norm"] = _short(norms[0] * scale)
    pairs = cosines[origin:, origin:]
    if len(pairs) > 1:
        found["cosines"] = [
            _short(pairs[i, k]) for i, k in zip(*np.triu_indices(len(pairs), 1), strict=True)
        ]
    return found


def _short(value: float) -> float:
    """Six significant digits: diagnostics are for reading."""
    return float(f"{value:.6g}")
