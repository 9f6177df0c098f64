"""The static check of a bundle or an ONNX file."""

from __future__ import annotations

from pathlib import Path

import graphs
from toolkit.bundle import Manifest, is_bundle
from toolkit.engine import Flavour
from toolkit.errors import ToolkitError

__all__ = ["check_path"]


def check_path(path: Path, target: Flavour, version: str = "") -> tuple[graphs.Violation, ...]:
    """What a builder will refuse in a bundle's graph, or in an ONNX file.

    A bundle says which dimensions have a range; of a file ranges are not asked.

    Raises:
        ToolkitError: If there is nothing at ``path``, or a folder that is no bundle.
        graphs.GraphError: If the graph cannot be read, or nothing is known of the version.
    """
    if not path.exists():
        raise ToolkitError(f"{path} does not exist", hint="give a bundle or an .onnx file")
    if not path.is_dir():
        return graphs.check_tensorrt(path, target, version)
    if not is_bundle(path):
        raise ToolkitError(
            f"{path} is no bundle, wanted a bundle or an .onnx file",
            hint="toolkit export RECIPE -o DIR makes a bundle",
        )
    manifest = Manifest.read(path / "manifest.json")
    return graphs.check_tensorrt(path / "model.onnx", target, version, tuple(manifest.shapes))
