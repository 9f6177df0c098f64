"""A bundle as a model of a Triton model repository, or as a further version of one."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphs import describe
from toolkit.artifacts import DimRange, Shapes
from toolkit.bundle import MANIFEST, Bundle, is_bundle, open_bundle
from toolkit.errors import PackageError, ParityError
from toolkit.package.beside import write_beside
from toolkit.package.config import build_config, differing
from toolkit.package.interface import interface_of
from toolkit.package.layout import CONFIG, GRAPH, versions_of
from toolkit.package.options import PackageOptions
from toolkit.package.schema import parse_config, print_config
from toolkit.package.staging import place, staging
from toolkit.package.warmup import FOLDER, WarmupInput, warmup_inputs

__all__ = ["Packaged", "package_triton"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ROW_LAWS = {"identical rows", "row order", "one row"}


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes:
        model: The model's folder.
        version: The version that was added.
        max_batch_size: 0 where requests are run one by one.
        files: Paths of the new version's files and, of a new model, its configuration.
        notes: What the user should know, one sentence each.
    """

    model: Path
    version: int
    max_batch_size: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def package_triton(folder: Path, out: Path, options: PackageOptions | None = None) -> Packaged:
    """Add the bundle in ``folder`` to the repository ``out``, which is made if it is missing.

    The configuration is derived from the graph itself and from the ranges of its dimensions. Of a
    model that is there already, it is kept, and the bundle becomes its next version.

    Raises:
        BundleError: If ``folder`` is no bundle.
        IntegrityError: If its files differ from its manifest.
        ParityError: If it did not pass its proof.
        PackageError: If it cannot be served, the repository cannot be written, or a model of this
            name has another interface.
    """
    options = options or PackageOptions()
    out = Path(os.path.abspath(out))  # noqa: PTH100  (a link in the path is kept as it is)
    bundle = open_bundle(folder)
    _check(bundle, out)
    name = _name(bundle, options)
    config, warmup, notes = _derive(bundle, name, options)
    model = out / name
    with staging(out) as partial:
        if model.exists():
            version = _next_version(model, config)
            _copy(bundle, partial / str(version))
            place(partial / str(version), model / str(version))
            new = model / str(version)
        else:
            version = 1
            _write_model(partial / name, config, warmup)
            _copy(bundle, partial / name / str(version))
            place(partial / name, model)
            new = model
    notes += write_beside(out)
    files = tuple(sorted(path for path in new.rglob("*") if path.is_file()))
    return Packaged(model, version, config.max_batch_size, files, tuple(notes))


def _check(bundle: Bundle, out: Path) -> None:
    if bundle.manifest.verdict != "passed":
        raise ParityError(
            f"{bundle.folder} failed its parity proof, so it is not packaged",
            hint=f"toolkit parity {bundle.folder} --explain names the node that goes wrong",
        )
    if is_bundle(out) or (out / CONFIG).exists():
        kind = "a bundle" if is_bundle(out) else "the folder of one model"
        raise PackageError(
            f"{out} is {kind}, wanted a repository, which holds a folder for each model",
            hint="name another folder with -o, for example -o models",
        )


def _name(bundle: Bundle, options: PackageOptions) -> str:
    name = options.name or bundle.folder.resolve().name
    if not _NAME.fullmatch(name):
        raise PackageError(
            f"{name!r} cannot be a model's name: wanted letters, digits, _, - and . after a letter"
            " or digit",
            hint="give one with --name",
        )
    return name


def _derive(
    bundle: Bundle, name: str, options: PackageOptions
) -> tuple[Any, tuple[WarmupInput, ...], list[str]]:
    manifest = bundle.manifest
    shapes: Shapes = {dim: DimRange(*span) for dim, span in manifest.shapes.items()}
    notes = []
    mixing = _mixing(bundle)
    if mixing:
        notes.append(f"requests are not joined into batches: {mixing}")
    if manifest.engine is not None:
        notes.append(
            f"model.plan ({manifest.engine.flavour} {manifest.engine.version}) is left out: the"
            " graph is served"
        )
    interface = interface_of(describe(bundle.model), shapes, rows_mix=bool(mixing))
    specs = [record.spec() for record in manifest.inputs]
    warmup = warmup_inputs(interface, specs, shapes, manifest.seed)
    return build_config(name, interface, warmup, options), warmup, notes


def _mixing(bundle: Bundle) -> str:
    """Why rows must not share a batch with strangers: what the proof found PyTorch to do."""
    path = bundle.folder / "parity.json"
    if not path.is_file():
        return ""
    verdicts = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
    checks = (check for verdict in verdicts for check in verdict["checks"])
    return next(
        (
            str(check["detail"])
            for check in checks
            if check["gate"] in _ROW_LAWS and check["detail"].startswith("PyTorch's own")
        ),
        "",
    )


def _next_version(model: Path, config: Any) -> int:
    """The number of the version to add.

    Raises:
        PackageError: If what is there is no model, or clients would have to change.
    """
    path = model / CONFIG
    if not path.is_file():
        raise PackageError(
            f"{model} exists and has no {CONFIG}, so it is no model of a repository",
            hint="choose another --name or -o",
        )
    there = parse_config(path.read_text(encoding="utf-8"), str(path))
    found = differing(there, config)
    if found:
        raise PackageError(
            f"{model.name} is there already, and its clients would have to change: "
            + "; ".join(found),
            hint="choose another --name",
        )
    return max(versions_of(model), default=0) + 1


def _write_model(folder: Path, config: Any, warmup: tuple[WarmupInput, ...]) -> None:
    (folder / FOLDER).mkdir(parents=True)
    (folder / CONFIG).write_text(print_config(config), encoding="utf-8")
    for each in warmup:
        (folder / FOLDER / each.file).write_bytes(each.data)


def _copy(bundle: Bundle, folder: Path) -> None:
    """The graph, its data and the manifest that has their hashes."""
    folder.mkdir(parents=True)
    wanted = [name for name in bundle.manifest.files if name.split("/")[0].startswith(GRAPH)]
    for name in (*wanted, MANIFEST):
        shutil.copyfile(bundle.folder / name, folder / name)
