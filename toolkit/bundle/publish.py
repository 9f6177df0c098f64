"""Publishing a folder atomically: after a crash there is the old one or the new one."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import BundleError, ToolkitError

__all__ = [
    "DISK_FULL",
    "LABELS",
    "MANIFEST",
    "Draft",
    "is_bundle",
    "make_parents",
    "partial_beside",
    "publishing",
    "put_in_place",
]

MANIFEST = "manifest.json"
LABELS = "labels.txt"  # of a classifier: a line for each place of its output

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HEAD = 4096  # a manifest says its kind in its first lines
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` holds a manifest of ours; that of a merged checkpoint is another kind."""
    path = folder / MANIFEST
    return path.is_file() and b'"kind": "merge"' not in path.read_bytes()[:_HEAD]


@dataclass
class Draft:
    """A folder being written.

    Attributes:
        folder: Where to write.
        destination: What the folder will be called; may be changed until it is published.
    """

    folder: Path
    destination: Path


@contextmanager
def publishing(out: Path) -> Iterator[Draft]:
    """Yield a draft in a temporary sibling of ``out``; on success it becomes ``out``.

    An existing bundle is replaced in one step. On any error, Ctrl-C included, the sibling and
    every folder made for it are removed and ``out`` is as it was.

    Raises:
        BundleError: If ``out`` exists and is not a bundle, cannot be written, or the disk is full.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100  (a link in the path is kept as it is)
    _check_target(out)
    with partial_beside(out, BundleError) as partial:
        _remove_stale(out)
        partial.mkdir()
        draft = Draft(partial, out)
        yield draft
        _check_target(draft.destination)
        put_in_place(partial, draft.destination)


@contextmanager
def partial_beside(out: Path, failure: type[ToolkitError]) -> Iterator[Path]:
    """Yield the path of a folder to make beside ``out``; it and parents made for it go at the end.

    Raises:
        ToolkitError: As ``failure``, if parents cannot be created or written into, or the disk is
            full.
    """
    made = make_parents(out.parent, failure)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        yield partial
    except OSError as error:
        if error.errno in DISK_FULL:
            raise failure(
                f"the disk is full: writing {out.name} stopped at {_size(partial):,} bytes",
                hint=f"free space on the file system of {out.parent}; nothing was left behind",
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()


def _check_target(out: Path) -> None:
    if out.is_dir() and (is_bundle(out) or not any(out.iterdir())):
        return
    if out.exists():
        kind = "a folder with other files in it" if out.is_dir() else "a file"
        raise BundleError(
            f"{out} exists and is {kind}, not a bundle",
            hint="choose another -o, or remove it yourself; only bundles are replaced",
        )


def make_parents(parent: Path, failure: type[ToolkitError]) -> list[Path]:
    """Create missing parents of an output folder.

    Returns:
        Those that were made, innermost first, so that they can be removed in this order.

    Raises:
        ToolkitError: As ``failure``, if they cannot be created or written into.
    """
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure(f"cannot create {parent}: {error.strerror}") from error
    if not os.access(parent, os.W_OK):
        raise failure(f"cannot write into {parent}: permission denied")
    return missing


def _remove_stale(out: Path) -> None:
    """Remove what runs that were killed left beside ``out``."""
    for folder in out.parent.glob(f".{out.name}.partial-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(partial: Path, out: Path) -> None:
    """Rename ``partial`` to ``out``; what was there changes places with it and is removed."""
    if not out.exists():
        partial.rename(out)
        return
    if _exchange(partial, out):
        shutil.rmtree(partial)
    else:
        # No renameat2 here: the old folder steps aside, and comes back if the rename fails.
        aside = partial.with_name(partial.name + "-old")
        out.rename(aside)
        try:
            partial.rename(out)
        except OSError:
            aside.rename(out)
            raise
        shutil.rmtree(aside)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically; False where the kernel or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    result = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return bool(result == 0)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
