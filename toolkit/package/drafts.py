"""Models made ready and put into a repository together: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import PackageError
from toolkit.package.config import differing
from toolkit.package.layout import CONFIG, versions_of
from toolkit.package.schema import parse_config, print_config
from toolkit.package.staging import place, staging

__all__ = ["Draft", "Placed", "add_models"]


@dataclass(frozen=True)
class Draft:
    """One model, not yet on disk.

    Attributes:
        name: The folder's, and the server's.
        config: The message of ``config.pbtxt``.
        write: Fills the folder of a version, which exists.
        files: What lies beside the configuration, by path: warm-up inputs, labels.
    """

    name: str
    config: Any
    write: Callable[[Path], None]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A model, or a further version of one, in its place.

    Attributes:
        model: The model's folder.
        version: The version that was added.
        folder: What is new: the model's folder, or the version's.
    """

    model: Path
    version: int
    folder: Path


def add_models(repository: Path, drafts: Sequence[Draft]) -> list[Placed]:
    """Write every draft beside the repository, then rename them in, in order.

    Of a model that is there already the configuration is kept, and the draft is its next version.
    Where one cannot be put in place, those before it are taken out again.

    Raises:
        PackageError: If a model of this name has another interface, or nothing can be written.
    """
    with staging(repository) as partial:
        placed = [_stage(draft, repository, partial / draft.name) for draft in drafts]
        done: list[Placed] = []
        existed = repository.exists()
        try:
            for each in placed:
                place(partial / each.model.name, each.folder)
                done.append(each)
        except BaseException:
            for each in reversed(done):
                with suppress(OSError):
                    each.folder.rename(partial / each.model.name)
            if not existed:
                with suppress(OSError):
                    repository.rmdir()
            raise
    return placed


def _stage(draft: Draft, repository: Path, folder: Path) -> Placed:
    model = repository / draft.name
    if model.exists():
        version = _next_version(model, draft.config)
        folder.mkdir()
        draft.write(folder)
        return Placed(model, version, model / str(version))
    (folder / "1").mkdir(parents=True)
    (folder / CONFIG).write_text(print_config(draft.config), encoding="utf-8")
    for name, content in draft.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    draft.write(folder / "1")
    return Placed(model, 1, model)


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
