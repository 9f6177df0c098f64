"""The output folder: written under another name, resumable by file, published by one rename."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.bundle import MANIFEST, make_parents, put_in_place
from toolkit.errors import Interrupted, MergeError

__all__ = ["JOURNAL", "Journal", "check_target", "writing"]

JOURNAL = "journal.json"
_LOCK = "lock"
# Inside of the partial folder: what is needed to go on, and not published.
_STATE = ".state"


@dataclass
class Journal:
    """What is finished of a merge, so that a later run can go on.

    Attributes:
        path: The file; rewritten atomically after each finished shard.
        fingerprint: Of everything that decides the output's bytes.
        shards: Findings and hash by file name.
    """

    path: Path
    fingerprint: str
    shards: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fingerprint: str, *, resume: bool) -> Journal:
        """Take up an earlier run's journal if it was of the same merge.

        Raises:
            MergeError: If it is to be resumed and was of another merge.
        """
        if resume and path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                found = {}
            if found.get("fingerprint") == fingerprint:
                return cls(path, fingerprint, found["shards"])
            raise MergeError(
                "what is left of the earlier merge cannot be continued: inputs, config or options "
                "have changed since",
                hint="run it without --resume to start again",
            )
        return cls(path, fingerprint)

    def finished(self, folder: Path, file: str, nbytes: int) -> bool:
        """Whether a file was finished and is still as long as it was."""
        path = folder / file
        return file in self.shards and path.is_file() and path.stat().st_size == nbytes

    def add(self, file: str, record: Mapping[str, Any]) -> None:
        """Note a finished file."""
        self.shards[file] = dict(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        content = {"fingerprint": self.fingerprint, "shards": self.shards}
        beside.write_text(json.dumps(content), encoding="utf-8")
        beside.replace(self.path)


def check_target(out: Path, *, force: bool) -> None:
    """Refuse a place that holds something else.

    Raises:
        MergeError: If ``out`` exists and is not an empty folder, or a merge to be replaced.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    ours = out.is_dir() and (out / MANIFEST).is_file() and (out / "merge.json").is_file()
    if ours and force:
        return
    what = "an earlier merge" if ours else "a folder with other files" if out.is_dir() else "a file"
    raise MergeError(
        f"{out} exists and is {what}",
        hint="give --force to replace it" if ours else "choose another place for the output",
    )


@contextmanager
def writing(out: Path, *, force: bool, resume: bool) -> Iterator[tuple[Path, Path]]:
    """Yield a partial folder beside ``out``, and one for state; on success it becomes ``out``.

    After an error nothing is left. After Ctrl-C the partial folder stays if a shard was finished,
    as it does after a kill; ``resume`` takes it up, and a run without it starts again.

    Raises:
        MergeError: If ``out`` cannot be used, or another merge is writing it.
        Interrupted: After Ctrl-C, if finished files are kept.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100  (a link in the path is kept as it is)
    check_target(out, force=force)
    partial = out.parent / f".{out.name}.merging"
    state = partial / _STATE
    made = make_parents(out.parent, MergeError)
    lock = _locked(partial, state)
    keep = False
    try:
        if not resume:
            _clear(partial)
        yield partial, state
        shutil.rmtree(state)
        put_in_place(partial, out)
    except KeyboardInterrupt as error:
        keep = (state / JOURNAL).exists() or any(state.glob(f"*/{JOURNAL}"))
        if keep:
            hint = "the finished files are kept: --resume goes on from them"
            raise Interrupted(hint) from error
        raise
    finally:
        os.close(lock)
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)
            if not out.exists():
                for folder in made:
                    folder.rmdir()


def _locked(partial: Path, state: Path) -> int:
    """Take the folder's lock, which ends with this process, however it ends."""
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise MergeError(f"another merge is writing {partial}") from error
    return descriptor


def _clear(partial: Path) -> None:
    """Remove what an earlier run left, but not the lock."""
    for path in partial.iterdir():
        if path.name == _STATE:
            for inner in path.iterdir():
                if inner.name != _LOCK:
                    shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
