"""Build the engine of a bundle, or of an ONNX file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.artifacts import DimRange, Engine, Shapes
from toolkit.bundle import (
    MANIFEST,
    Bundle,
    EngineRecord,
    hash_file,
    is_bundle,
    open_bundle,
    versions,
)
from toolkit.engine import TITLES, EngineOptions, Flavour, build_engine, refuse
from toolkit.errors import BundleError, EngineError, ToolkitError
from toolkit.progress import Progress, silent
from toolkit.recipe import EngineSettings, engine_options, load_recipe, size_in_bytes

__all__ = [
    "build_path",
    "options_for",
    "parse_memory",
    "parse_profiles",
    "parse_shapes",
    "target_of",
]

PLAN = "model.plan"

_RANGE = re.compile(r"^\s*(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<sizes>\d+(\s*,\s*\d+){0,2})\s*$")


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """Ranges such as ``batch=1,4,16``: least, usual and largest, or one size.

    Raises:
        ToolkitError: If a text is none, or a name comes twice.
    """
    found: dict[str, DimRange] = {}
    for text in texts:
        match = _RANGE.match(text)
        sizes = [int(size) for size in match["sizes"].split(",")] if match else []
        if match is None or len(sizes) == 2:
            raise ToolkitError(
                f"found the range {text!r}, wanted NAME=MIN,OPT,MAX or NAME=SIZE",
                hint="for example batch=1,4,16",
            )
        if match["name"] in found:
            raise ToolkitError(f"found two ranges for {match['name']!r}, wanted one")
        found[match["name"]] = DimRange(*(sizes if len(sizes) == 3 else sizes * 3))
    return found


def parse_profiles(texts: Sequence[str]) -> dict[str, Shapes]:
    """Optimization profiles such as ``decode:sequence=1``; one name may come several times.

    Raises:
        ToolkitError: If a text is none.
    """
    ranges: dict[str, list[str]] = {}
    for text in texts:
        name, colon, span = text.partition(":")
        if not (colon and name.isidentifier()):
            raise ToolkitError(
                f"found the profile {text!r}, wanted PROFILE:NAME=MIN,OPT,MAX",
                hint="for example decode:sequence=1",
            )
        ranges.setdefault(name, []).append(span)
    return {name: parse_shapes(spans) for name, spans in ranges.items()}


def parse_memory(texts: Sequence[str]) -> dict[str, int]:
    """Limits such as ``workspace=512MiB``.

    Raises:
        ToolkitError: If a text is none.
    """
    found: dict[str, int] = {}
    for text in texts:
        pool, equals, size = text.partition("=")
        if not equals:
            raise ToolkitError(
                f"found the memory {text!r}, wanted POOL=SIZE", hint="for example workspace=512MiB"
            )
        found[pool] = size_in_bytes(size)
    return found


def options_for(path: Path, flavour: Flavour, stated: Mapping[str, Any]) -> EngineOptions:
    """How to build: as the bundle's recipe says, and in its place what is stated.

    What the recipe says for another flavour, and this one lacks, is left out.

    Raises:
        ToolkitError: If the recipe cannot be read, or what is stated cannot be had.
    """
    settings = EngineSettings(profiles={}, memory={})
    recipe = path / "recipe.yaml"
    if recipe.is_file():
        # It was checked when the bundle was made; building runs none of its code.
        settings = load_recipe(recipe, allow_code=True, check_files=False).engine
    return engine_options(settings, flavour, stated)


def target_of(path: Path, target: Flavour | None) -> Flavour:
    """What to build: as asked, or a bundle's own target.

    Raises:
        ToolkitError: If it is not asked, and the bundle has none.
    """
    if target is not None:
        return target
    if path.is_dir():
        own = open_bundle(path, verify=False).manifest.target
        if own in TITLES:
            return own
    raise ToolkitError(
        f"{path} does not say which engine to build", hint="--target tensorrt-rtx or tensorrt"
    )


def build_path(
    path: Path,
    options: EngineOptions,
    out: Path | None = None,
    shapes: Shapes | None = None,
    progress: Progress = silent,
) -> Engine:
    """Build an engine from a bundle or an ONNX file.

    What the static checker finds is told before anything is looked for on this machine. A bundle
    is held against its manifest first; without ``out`` its plan is put into it, and its manifest
    says so from then on.

    Args:
        path: A bundle, or an ``.onnx`` file with its data beside it.
        options: How to build.
        out: The plan; a bundle's own if None, which a file must not have.
        shapes: Ranges of the symbolic dimensions; of a bundle they replace its own.
        progress: Told of the builder's phases.

    Raises:
        CapabilityError: If this machine lacks what the flavour needs.
        EngineError: If the graph is refused or cannot be built.
        IntegrityError: If the bundle's files differ from its manifest.
        ToolkitError: If there is no such thing, or no place for the plan.
    """
    if not path.is_dir():
        return _build_file(path, options, out, shapes or {}, progress)
    if not is_bundle(path):
        raise BundleError(
            f"{path} is no bundle, wanted a bundle or an .onnx file",
            hint="toolkit export RECIPE -o DIR makes a bundle",
        )
    bundle = open_bundle(path)
    if bundle.manifest.verdict != "passed":
        raise BundleError(
            f"the proof of {path} failed, wanted a bundle that passed",
            hint="toolkit parity --explain names what goes wrong",
        )
    ranges = {name: DimRange(*span) for name, span in bundle.manifest.shapes.items()}
    ranges.update(shapes or {})
    refuse(bundle.model, options.flavour, tuple(ranges))
    engine = build_engine(bundle.model, ranges, options, out or path / PLAN, progress)
    if out is None:
        _note(bundle, engine)
    return engine


def _build_file(
    path: Path, options: EngineOptions, out: Path | None, shapes: Shapes, progress: Progress
) -> Engine:
    if not path.is_file():
        raise EngineError(f"there is no ONNX file at {path}", hint="give a bundle or an .onnx file")
    place = out or path.with_suffix(".plan")
    refuse(path, options.flavour, tuple(shapes))
    return build_engine(path, shapes, options, place, progress)


def _note(bundle: Bundle, engine: Engine) -> None:
    """Write the plan into the manifest, by one rename."""
    old = bundle.manifest
    new = old.model_copy(
        update={
            "target": engine.flavour,
            "engine": EngineRecord.of(engine),
            "versions": {**old.versions, **versions()},
            "files": {**old.files, PLAN: hash_file(bundle.folder / PLAN)},
        }
    )
    partial = bundle.folder / f".{MANIFEST}.partial-{os.getpid()}"
    try:
        new.write(partial)
        partial.replace(bundle.folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
