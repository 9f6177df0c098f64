"""What the places of a classifier's output mean."""

from __future__ import annotations

from pathlib import Path

from toolkit.bundle import LABELS, Bundle
from toolkit.errors import PackageError
from toolkit.package.interface import Interface

__all__ = ["labelled_outputs", "labels_of", "labels_text"]


def labels_of(bundle: Bundle, asked: Path | None) -> tuple[str, ...]:
    """One label for every place: those of a file, or the bundle's own; none where none is known.

    Raises:
        PackageError: If the file cannot be read, or has an empty line.
    """
    path = asked or bundle.folder / LABELS
    if asked is None and not path.is_file():
        return ()
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(
            f"the labels {path} cannot be read: {error}", hint="a text file, one label a line"
        ) from error
    if not labels or not all(label.strip() for label in labels):
        raise PackageError(f"{path} has an empty line, wanted one label in each")
    return tuple(labels)


def labelled_outputs(interface: Interface, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs with a value for every label in a row, which is what Triton's labels are for."""
    if not labels:
        return ()
    return tuple(
        tensor.name
        for tensor in interface.outputs
        if interface.max_batch_size and tensor.dims == (len(labels),) and not tensor.scalar
    )


def labels_text(labels: tuple[str, ...]) -> bytes:
    """The file's content."""
    return ("\n".join(labels) + "\n").encode()
