"""Writing a checkpoint from another: in one step, with what lies beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.bundle import partial_beside, put_in_place
from toolkit.checkpoint import PICKLE_SUFFIXES
from toolkit.errors import BundleError

__all__ = ["copy_beside", "new_checkpoint", "refuse_existing"]


@contextmanager
def new_checkpoint(out: Path) -> Iterator[Path]:
    """Yield where to write a folder or a file that becomes ``out`` when all is done.

    Raises:
        BundleError: If ``out`` exists, cannot be written, or the disk is full.
    """
    refuse_existing(out)
    with partial_beside(out, BundleError) as partial:
        partial.mkdir()
        yield partial / out.name
        put_in_place(partial / out.name, out)


def refuse_existing(out: Path) -> None:
    """Before long work.

    Raises:
        BundleError: If ``out`` exists.
    """
    if out.exists():
        raise BundleError(f"{out} exists", hint="choose another, or remove it")


def copy_beside(src: Path, out: Path, skipped: Collection[str]) -> None:
    """Copy what lies in a model folder beside its weights: configuration, tokenizer, code."""
    for path in sorted(src.iterdir()):
        if path.is_file() and path.name not in skipped and path.suffix not in PICKLE_SUFFIXES:
            shutil.copyfile(path, out / path.name)
