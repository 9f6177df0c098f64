"""Opening a bundle and holding its files against its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle.manifest import Manifest, hash_file
from toolkit.bundle.publish import MANIFEST
from toolkit.errors import BundleError, IntegrityError

__all__ = ["Bundle", "differences", "open_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The ONNX graph."""
        return self.folder / "model.onnx"


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read the manifest and, unless told otherwise, check every file against it.

    Raises:
        BundleError: If ``folder`` is no bundle.
        IntegrityError: If a file is missing, differs, or is not in the manifest.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder", hint="toolkit export RECIPE -o DIR")
    bundle = Bundle(folder, Manifest.read(folder / MANIFEST))
    found = differences(bundle) if verify else []
    if found:
        raise IntegrityError(
            f"{folder} differs from its manifest: " + "; ".join(found),
            hint="export it again; toolkit parity --as-is judges the files as they lie there",
        )
    return bundle


def differences(bundle: Bundle) -> list[str]:
    """What differs between the folder and its manifest, one phrase a file."""
    recorded = bundle.manifest.files
    present = {
        path.relative_to(bundle.folder).as_posix()
        for path in bundle.folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    found = [f"{name} is missing" for name in sorted(set(recorded) - present)]
    found += [f"{name} is not in the manifest" for name in sorted(present - set(recorded))]
    for name in sorted(set(recorded) & present):
        if hash_file(bundle.folder / name) != recorded[name]:
            found.append(f"{name} has changed")
    return found
