"""Options of a merge that are not part of what is merged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import MergeError
from toolkit.merge.operands import CHUNK_ELEMENTS

__all__ = ["DEFAULTS", "MergeOptions"]


@dataclass(frozen=True)
class MergeOptions:
    """How to merge.

    Attributes:
        seed: Of random methods; the same seed gives the same bytes.
        threads: How many tensors are merged at a time; 0 for one per core.
        shard_bytes: Most bytes of an output file.
        chunk: Most elements of a model that are read at a time; does not change the result.
        force: Merge models that do not look related, and replace an earlier merge.
        resume: Go on from the finished files of a merge that was stopped.
        confined: Refuse models outside of the config's folder.
        folder: Where relative names of models are looked up; the config's own folder if None.
    """

    seed: int = 0
    threads: int = 0
    shard_bytes: int = 5_000_000_000
    chunk: int = CHUNK_ELEMENTS
    force: bool = False
    resume: bool = False
    confined: bool = False
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.threads < 0 or self.shard_bytes < 1 or self.chunk < 1:
            raise MergeError(
                f"threads {self.threads}, shard size {self.shard_bytes} and chunk {self.chunk} "
                "must be positive"
            )

    @property
    def workers(self) -> int:
        """The number of threads, known."""
        return self.threads or len(os.sched_getaffinity(0))


DEFAULTS = MergeOptions()
