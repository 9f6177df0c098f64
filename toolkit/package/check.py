"""Holds a model repository against what Triton asks of it; anybody's, ours or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphs import GraphError, describe
from toolkit.errors import PackageError
from toolkit.package.config_rules import backend_of, backend_rules, scheduling_rules
from toolkit.package.ensemble_rules import ensemble_rules
from toolkit.package.file_rules import (
    hash_rules,
    label_rules,
    python_rules,
    version_rules,
    warmup_rules,
)
from toolkit.package.findings import CheckReport, Finding, Level
from toolkit.package.layout import CODE, CONFIG, GRAPH, PLAN, served_versions, versions_of
from toolkit.package.schema import parse_config
from toolkit.package.tensor_rules import graph_rules, tensor_rules

__all__ = ["check_repository"]

Found = Iterator[tuple[Level, str]]

_COMPILED = {"tensorrt": PLAN, "python": CODE}


@dataclass
class _Model:
    """One model while it is looked at."""

    folder: Path
    config: Any = None
    backend: str = ""
    found: list[tuple[Level, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return any(level == "refused" for level, _ in self.found)


def check_repository(repository: Path) -> CheckReport:
    """Look at every model: schema, rules, graphs, files, hashes.

    Raises:
        PackageError: If it is no folder, or has no model in it.
    """
    if not repository.is_dir():
        raise PackageError(
            f"{repository} is not a folder", hint="toolkit package BUNDLE -o DIR makes one"
        )
    folders = sorted(
        path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not folders or (repository / CONFIG).is_file():
        raise PackageError(
            f"{repository} is no model repository: wanted a folder of models, each with {CONFIG}",
            hint="give the folder above the model's" if folders else "",
        )
    models = [_look(folder) for folder in folders]
    plain = {m.folder.name: m.config for m in models if m.backend != "ensemble" and not m.refused}
    _look_at_ensembles([m for m in models if m.backend == "ensemble"], plain)
    findings = [Finding(m.folder.name, level, said) for m in models for level, said in m.found]
    unchecked = [f"{m.folder.name}: {said}" for m in models for said in m.unchecked]
    names = tuple(folder.name for folder in folders)
    return CheckReport(repository, names, tuple(findings), tuple(unchecked))


def _look_at_ensembles(ensembles: list[_Model], known: dict[str, Any]) -> None:
    """Ensembles may hold ensembles: those whose models are known come first."""
    waiting = [model for model in ensembles if not model.refused]
    while waiting:
        names = {model.folder.name for model in waiting}
        ready = [m for m in waiting if not names & {s.model_name for s in _steps(m)}] or waiting
        for model in ready:
            model.found += ensemble_rules(model.config, known)
        known |= {m.folder.name: m.config for m in ready if not m.refused}
        waiting = [model for model in waiting if model not in ready]


def _steps(model: _Model) -> Any:
    return model.config.ensemble_scheduling.step


def _look(folder: Path) -> _Model:
    model = _Model(folder)
    path = folder / CONFIG
    if not path.is_file():
        model.found.append(("refused", f"there is no {CONFIG}"))
        return model
    try:
        model.config = parse_config(path.read_text(encoding="utf-8"), CONFIG)
    except (PackageError, UnicodeDecodeError) as error:
        model.found.append(("refused", str(error)))
        return model
    model.found += _rules(model)
    return model


def _rules(model: _Model) -> Found:
    config, folder = model.config, model.folder
    if config.name not in {"", folder.name}:
        yield "refused", f"name is {config.name!r}, wanted the folder's, {folder.name!r}"
    there = versions_of(folder)
    model.backend = backend_of(config, folder, there)
    yield from backend_rules(config, model.backend, folder)
    yield from scheduling_rules(config, folder)
    yield from tensor_rules(config)
    yield from version_rules(config, there)
    yield from label_rules(config, folder)
    yield from warmup_rules(config, folder)
    for version in there:
        yield from hash_rules(folder / str(version))
    for version in served_versions(config, there):
        yield from _version(model, folder / str(version))


def _version(model: _Model, folder: Path) -> Found:
    if model.backend == "ensemble":
        if not any(folder.iterdir()):
            yield "wrong", f"{folder.name} is empty, and version control keeps no empty folder"
        return
    if model.backend != "onnxruntime":
        name = model.config.default_model_filename or _COMPILED.get(model.backend, "")
        if name and model.backend in _COMPILED and not (folder / name).exists():
            yield "refused", f"there is no file {folder.name}/{name}"
        elif model.backend == "python":
            yield from python_rules(folder / name)
        for each in model.config.cc_model_filenames:
            if not (folder / each.value).exists():
                where = f"{folder.name}/{each.value}"
                yield "refused", f"there is no file {where}, for GPUs of {each.key}"
        model.unchecked.append(f"version {folder.name}, which the {model.backend} backend reads")
        return
    path = folder / (model.config.default_model_filename or GRAPH)
    where = f"{folder.name}/{path.name}"
    if not path.exists():
        yield "refused", f"there is no file {where}"
        return
    try:
        found = describe(path)
    except GraphError as error:
        yield "refused", error.message.replace(str(path), where)
        return
    yield from graph_rules(model.config, found, where)
