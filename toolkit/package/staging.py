"""Writing into a model repository that a server may be watching: whole folders, by one rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.bundle import DISK_FULL, partial_beside
from toolkit.errors import PackageError

__all__ = ["place", "replace_text", "staging"]


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``repository``, where a polling server does not look.

    On any error, Ctrl-C included, it and every folder made for it are removed.

    Raises:
        PackageError: If ``repository`` is a file, or cannot be written, or the disk is full.
    """
    if repository.exists() and not repository.is_dir():
        raise PackageError(f"{repository} is a file, wanted a folder for models")
    with partial_beside(repository, PackageError) as partial:
        partial.mkdir()
        yield partial


def place(folder: Path, out: Path) -> None:
    """Rename a staged folder to where nothing is.

    Raises:
        PackageError: If something came to be there in the meantime, or it cannot be written.
    """
    try:
        out.parent.mkdir(exist_ok=True)
        folder.rename(out)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        taken = error.errno in {errno.ENOTEMPTY, errno.EEXIST}
        why = "something else was put there meanwhile" if taken else error.strerror
        raise PackageError(f"cannot put {out} in place: {why}", hint="run it again") from error


def replace_text(path: Path, text: str, *, executable: bool = False) -> None:
    """Write a file; an earlier one is replaced only by a complete one."""
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.chmod(0o755 if executable else 0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
