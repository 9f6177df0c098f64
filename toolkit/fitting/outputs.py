"""What members say about the examples, computed once and kept on disk.

This is all that fitting needs of a member, for weights, gates or any combiner on top of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import BundleError, RecipeError
from toolkit.fitting.examples import Batch
from toolkit.progress import Progress, silent
from toolkit.runtime import Runner

__all__ = ["Keep", "OutputCache", "label_log_probabilities", "whole"]

_Array = npt.NDArray[Any]

# What is kept of an output [rows, ..., V]: an array of the labels' shape, or with what follows it.
Keep = Callable[[_Array, Batch], _Array]


def whole(output: _Array, _batch: Batch) -> _Array:
    """The output as it is."""
    return output


def label_log_probabilities(space: str) -> Keep:
    """A function that keeps the log probability of each label, 0 where none counts.

    Args:
        space: ``logits`` or ``probabilities``.

    The function raises ``RecipeError`` for labels that are no classes of the output.
    """

    def keep(output: _Array, batch: Batch) -> _Array:
        _check(output, batch.labels)
        values = output.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if space == "probabilities":
                logs = np.log(values)
            else:
                below = values - values.max(-1, keepdims=True)
                logs = below - np.log(np.exp(below).sum(-1, keepdims=True))
        counts = batch.labels >= 0
        chosen = np.take_along_axis(logs, np.where(counts, batch.labels, 0)[..., None], -1)[..., 0]
        found: _Array = np.where(counts, chosen, 0.0)
        return found

    return keep


def _check(output: _Array, labels: _Array) -> None:
    if output.shape[:-1] != labels.shape:
        raise RecipeError(
            f"the labels of a batch have shape {list(labels.shape)} and the members' output "
            f"{list(output.shape)}, wanted one label for each row of it"
        )
    if labels.size and labels.max() >= output.shape[-1]:
        raise RecipeError(
            f"a label is {labels.max()}, and the members know {output.shape[-1]} classes"
        )


class OutputCache:
    """Arrays on disk by the key of what gave them; a context manager.

    With a folder they stay for the next time, otherwise they go on leaving.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._kept = folder
        self._folder = folder
        self._passing: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> OutputCache:
        """Make the folder.

        Raises:
            BundleError: If it cannot be made.
        """
        if self._kept is None:
            self._passing = tempfile.TemporaryDirectory(prefix="toolkit-outputs-")
            self._folder = Path(self._passing.name)
            return self
        try:
            self._kept.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"cannot make the cache {self._kept}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Delete what was not to stay."""
        if self._passing is not None:
            self._passing.cleanup()

    def outputs(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
        self,
        key: str,
        label: str,
        runner: Runner,
        output: str,
        batches: Sequence[Batch],
        keep: Keep = whole,
        progress: Progress = silent,
    ) -> list[_Array]:
        """What ``runner`` says about each batch, memory-mapped; it is entered only if not known.

        Writing to the arrays changes no file.

        Args:
            key: Stands for everything the result depends on; a file name.
            label: What progress calls the member.
            runner: The member.
            output: Which of its outputs.
            batches: The examples.
            keep: What is kept of it.
            progress: Told of every batch.
        """
        assert self._folder is not None
        place = self._folder / key
        if not place.is_dir():
            part = Path(tempfile.mkdtemp(dir=self._folder, prefix=".part-"))
            try:
                with runner as run:
                    for number, batch in enumerate(batches):
                        progress(f"run {label}", number, len(batches))
                        kept = keep(run(batch.feeds)[output], batch)
                        np.save(part / f"{number}.npy", kept, allow_pickle=False)
                part.rename(place)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return [
            np.load(place / f"{number}.npy", mmap_mode="c", allow_pickle=False)
            for number in range(len(batches))
        ]
