"""A bundle with the C++ program that runs it: sources, graph, manifest and inputs, to be built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.bundle import (
    MANIFEST,
    Bundle,
    Manifest,
    open_bundle,
    partial_beside,
    put_in_place,
)
from toolkit.errors import PackageError, ParityError
from toolkit.feeds import make_feeds
from toolkit.package.beside import render
from toolkit.package.sources import read_sources
from toolkit.plugins import SOURCES

__all__ = ["CppPackaged", "package_cpp"]

# What .npy files and the program have; samples/cpp/npy.cpp has the same list.
_DTYPES = {
    "bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64",
}  # fmt: skip
_RUN = ("model.onnx", "model.plan")


@dataclass(frozen=True)
class CppPackaged:
    """What was written.

    Attributes:
        folder: The package.
        files: Paths of its files.
        notes: What the user should know, one sentence each.
    """

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def package_cpp(folder: Path, out: Path) -> CppPackaged:
    """Write ``out``: a CMake project that runs the bundle in ``folder``, with what it needs.

    Raises:
        BundleError: If ``folder`` is no bundle.
        IntegrityError: If its files differ from its manifest.
        ParityError: If it did not pass its proof.
        PackageError: If something is there, it cannot be written, or a tensor's type has no place
            in a ``.npy`` file.
    """
    out = out.absolute()
    bundle = open_bundle(folder)
    _check(bundle, out)
    with partial_beside(out, PackageError) as partial:
        _write(bundle, partial)
        if out.is_dir():
            out.rmdir()
        put_in_place(partial, out)
    files = tuple(sorted(path for path in out.rglob("*") if path.is_file()))
    return CppPackaged(out, files, tuple(_notes(bundle.manifest)))


def _check(bundle: Bundle, out: Path) -> None:
    if bundle.manifest.verdict != "passed":
        raise ParityError(
            f"{bundle.folder} failed its parity proof, so it is not packaged",
            hint=f"toolkit parity {bundle.folder} --explain names the node that goes wrong",
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PackageError(
            f"{out} is there already, and a program that was built or changed is not replaced",
            hint="choose another -o, or remove it yourself",
        )
    for tensor in (*bundle.manifest.inputs, *bundle.manifest.outputs):
        if tensor.dtype not in _DTYPES:
            raise PackageError(
                f"{tensor.name!r} is {tensor.dtype}, which the program's .npy files do not have",
                hint="export.io: float32 keeps inputs and outputs in float32",
            )


def _write(bundle: Bundle, folder: Path) -> None:
    manifest = bundle.manifest
    for name in ("bundle", "feeds"):
        (folder / name).mkdir(parents=True)
    for name, text in read_sources().items():
        (folder / name).write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            (folder / name).chmod(0o755)
    kept = {name: record for name, record in manifest.files.items() if name.startswith(_RUN)}
    for name in kept:
        shutil.copyfile(bundle.folder / name, folder / "bundle" / name)
    manifest.model_copy(update={"files": kept}).write(folder / "bundle" / MANIFEST)
    for name, array in _feeds(manifest).items():
        np.save(folder / "feeds" / f"{name}.npy", array)
    if _wants_plugin(manifest):
        (folder / "plugin").mkdir()
        for entry in SOURCES.iterdir():
            if entry.is_file():
                shutil.copyfile(entry, folder / "plugin" / entry.name)
    text = render(
        "cpp_README.md.j2",
        name=bundle.folder.resolve().name,
        manifest=manifest,
        plugin=_wants_plugin(manifest),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _feeds(manifest: Manifest) -> Mapping[str, npt.NDArray[Any]]:
    dims = {name: usual for name, (_, usual, _) in manifest.shapes.items()}
    specs = [tensor.spec() for tensor in manifest.inputs]
    return {
        name: np.ascontiguousarray(array)
        for name, array in make_feeds(
            specs, dims, np.random.default_rng(manifest.seed), "full"
        ).items()
    }


def _wants_plugin(manifest: Manifest) -> bool:
    """Whether the engine was built with the plugin library, without which it does not load."""
    return manifest.engine is not None and manifest.engine.plugin == "library"


def _notes(manifest: Manifest) -> Iterator[str]:
    if manifest.engine is not None:
        yield (
            f"run_trt runs model.plan where CMake finds {manifest.engine.flavour}"
            f" {manifest.engine.version} and CUDA"
        )
    if _wants_plugin(manifest):
        yield "the engine needs the plugin library: plugin/ has its sources"
