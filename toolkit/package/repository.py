"""A bundle as a model of a Triton model repository, or as a further version of one."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphs import Description, describe
from toolkit.bundle import Bundle, is_bundle, open_bundle
from toolkit.errors import PackageError
from toolkit.package.artefact import Artefact, artefacts_of, check_proof
from toolkit.package.beside import write_beside
from toolkit.package.config import Served, build_config
from toolkit.package.drafts import Draft, Placed, add_models
from toolkit.package.interface import interface_of
from toolkit.package.labels import labelled_outputs, labels_of, labels_text
from toolkit.package.layout import CONFIG, LABELS
from toolkit.package.optimization import add_accelerator, add_cuda_graphs
from toolkit.package.options import PackageOptions
from toolkit.package.states import State, StateRefusal, states_of
from toolkit.package.warmup import FOLDER, warmup_inputs

__all__ = [
    "Packaged",
    "add_all",
    "copying",
    "draft_of",
    "model_name",
    "opened",
    "package_triton",
    "row_mixing",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ROW_LAWS = {"identical rows", "row order", "one row"}


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes:
        model: The folder of the model to ask: the last of ``models``.
        version: Its version that was added.
        max_batch_size: 0 where requests are run one by one.
        files: Paths of every new version's files and, of a new model, its configuration.
        notes: What the user should know, one sentence each.
        models: The names of all models that were added to, members before ensembles.
    """

    model: Path
    version: int
    max_batch_size: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    models: tuple[str, ...]


def package_triton(folder: Path, out: Path, options: PackageOptions | None = None) -> Packaged:
    """Add the bundle in ``folder`` to the repository ``out``, which is made if it is missing.

    The configuration is derived from the graph itself and from the ranges of its dimensions. Of a
    model that is there already, it is kept, and the bundle becomes its next version.

    Raises:
        BundleError: If ``folder`` is no bundle.
        IntegrityError: If its files differ from its manifest.
        ParityError: If it did not pass its proof.
        PackageError: If it cannot be served as asked, the repository cannot be written, or a model
            of this name has another interface.
    """
    options = options or PackageOptions()
    bundle = opened(folder, out)
    name = model_name(bundle, options)
    found = describe(bundle.model)
    artefacts, notes = artefacts_of(bundle, options)
    drafts = []
    for artefact in artefacts:
        # Of both, the plan has a name of its own.
        own = name if len(artefacts) == 1 or artefact.backend == "onnxruntime" else f"{name}_plan"
        draft, said = draft_of(own, bundle, found, artefact, options)
        drafts.append(draft)
        notes += [note for note in said if note not in notes]
    return add_all(out, drafts, notes)


def opened(folder: Path, out: Path) -> Bundle:
    """The bundle, proven, and a place that may be a repository."""
    bundle = open_bundle(folder)
    check_proof(bundle)
    if is_bundle(out) or (out / CONFIG).exists():
        kind = "a bundle" if is_bundle(out) else "the folder of one model"
        raise PackageError(
            f"{out} is {kind}, wanted a repository, which holds a folder for each model",
            hint="name another folder with -o, for example -o models",
        )
    return bundle


def model_name(bundle: Bundle, options: PackageOptions) -> str:
    """As asked, or the bundle folder's.

    Raises:
        PackageError: If it cannot be a model's.
    """
    name = options.name or bundle.folder.resolve().name
    if not _NAME.fullmatch(name):
        raise PackageError(
            f"{name!r} cannot be a model's name: wanted letters, digits, _, - and . after a letter"
            " or digit",
            hint="give one with --name",
        )
    return name


def add_all(out: Path, drafts: Sequence[Draft], notes: Sequence[str]) -> Packaged:
    """Put the drafts into the repository, and renew what lies beside them."""
    out = Path(os.path.abspath(out))  # noqa: PTH100  (a link in the path is kept as it is)
    placed: list[Placed] = add_models(out, drafts)
    said = [*notes, *write_beside(out)]
    files = (path for each in placed for path in each.folder.rglob("*") if path.is_file())
    last = placed[-1]
    return Packaged(
        last.model,
        last.version,
        drafts[-1].config.max_batch_size,
        tuple(sorted(files)),
        tuple(said),
        tuple(draft.name for draft in drafts),
    )


def draft_of(
    name: str, bundle: Bundle, found: Description, artefact: Artefact, options: PackageOptions
) -> tuple[Draft, list[str]]:
    """One artefact of a bundle as a model, and what the user should know."""
    mixing = row_mixing(bundle)
    notes = [f"requests are not joined into batches: {mixing}"] if mixing else []
    interface = interface_of(found, artefact.shapes, rows_mix=bool(mixing))
    specs = [record.spec() for record in bundle.manifest.inputs]
    states, said = _states(states_of(interface, specs, artefact.shapes), options)
    labels = labels_of(bundle, options.labels)
    labelled = labelled_outputs(interface, labels)
    if options.labels is not None and not labelled:
        raise PackageError(
            f"{options.labels} has {len(labels)} labels, and no output has as many values a row:"
            f" {', '.join(f'{t.name} {list(t.dims)}' for t in interface.outputs)}",
            hint="give one label for each place of the output's last axis",
        )
    _check_choices(interface.max_batch_size, artefact, options)
    warmup = warmup_inputs(interface, specs, artefact.usual, bundle.manifest.seed)
    rows = _warm_rows(interface.batch, interface.max_batch_size, artefact)
    served = Served(interface, artefact, warmup, labelled, states, rows=rows)
    config = build_config(name, served, options)
    if options.accelerator == "tensorrt":
        add_accelerator(config, found, bundle.model, artefact.shapes)
    if options.cuda_graphs and artefact.backend == "tensorrt":
        add_cuda_graphs(config, found, interface, artefact)
    files = {} if states else {f"{FOLDER}/{each.file}": each.data for each in warmup}
    if labelled:
        files[LABELS] = labels_text(labels)
    return Draft(name, config, copying(artefact.files), files), [*notes, *said]


def _states(
    found: tuple[State, ...] | StateRefusal, options: PackageOptions
) -> tuple[tuple[State, ...], list[str]]:
    if options.state == "client":
        return (), []
    if not isinstance(found, StateRefusal):
        return found, []
    if options.state == "server":
        raise PackageError(
            f"the server cannot keep its caches: {found.reason or 'it has none'}",
            hint="--state client: a client keeps them and sends them with each request",
        )
    return (), [f"clients keep the caches: {found.reason}"] if found.reason else []


def _warm_rows(batch: str | None, most: int, artefact: Artefact) -> tuple[int, ...]:
    """One row and the most, where the profile that warms up takes them."""
    if batch is None:
        return (1,)
    span = artefact.usual[batch]
    return tuple(dict.fromkeys((max(1, span.min), min(span.max, most))))


def _check_choices(most: int, artefact: Artefact, options: PackageOptions) -> None:
    too_large = [size for size in options.preferred if not 0 < size <= most]
    if too_large:
        raise PackageError(
            f"a batch of {too_large[0]} is preferred, and the model takes {most or 'no batches'}",
            hint=f"sizes from 1 to {most}" if most else "leave --preferred-batch out",
        )
    if options.accelerator == "tensorrt" and artefact.backend != "onnxruntime":
        raise PackageError(
            "the accelerator is for the graph, and a plan is what is packaged",
            hint="--artifact onnx, or leave --accelerator out",
        )
    if options.device == "cpu" and (
        options.accelerator == "tensorrt" or artefact.backend == "tensorrt"
    ):
        raise PackageError(
            "TensorRT runs on GPUs, and --device is cpu",
            hint="leave --device out" if artefact.backend == "tensorrt" else "or --accelerator",
        )
    if options.cuda_graphs and options.artifact != "both" and artefact.backend != "tensorrt":
        raise PackageError(
            "CUDA graphs are captured of plans, and the graph is what is packaged",
            hint="leave --cuda-graphs out, or build a plan: toolkit build --target tensorrt",
        )


def row_mixing(bundle: Bundle) -> str:
    """Why rows must not share a batch with strangers: what the proof found PyTorch to do."""
    path = bundle.folder / "parity.json"
    if not path.is_file():
        return ""
    return next((str(check["detail"]) for check in _checks(path) if _mixes(check)), "")


def _checks(path: Path) -> Iterator[Mapping[str, Any]]:
    for verdict in json.loads(path.read_text(encoding="utf-8"))["verdicts"]:
        yield from verdict["checks"]


def _mixes(check: Mapping[str, Any]) -> bool:
    return check["gate"] in _ROW_LAWS and check["detail"].startswith("PyTorch's own")


def copying(files: Mapping[str, Path]) -> Callable[[Path], None]:
    """What writes a version: these files, under these names."""

    def write(folder: Path) -> None:
        for name, path in files.items():
            shutil.copyfile(path, folder / name)

    return write
