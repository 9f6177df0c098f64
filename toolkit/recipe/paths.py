"""Paths a recipe names: confined to its folder, or to the folder given as ``--root``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from toolkit.recipe.base import LoadContext, context_of, invalid
from toolkit.recipe.problems import shown

__all__ = ["DataPath", "FilePath", "FolderPath", "LocalPath"]

_ROOT_HINT = (
    "paths are read against the recipe's folder and stay inside it; name another with --root"
)


@dataclass(frozen=True)
class LocalPath:
    """A path as the recipe writes it, and where it leads.

    Attributes:
        text: As written; what a resolved recipe repeats.
        path: The same, joined to the root.
    """

    text: str
    path: Path

    def __str__(self) -> str:
        return self.text


def _validator(folder: bool | None) -> Callable[[Any, ValidationInfo], LocalPath]:
    def read(value: Any, info: ValidationInfo) -> LocalPath:
        if isinstance(value, LocalPath):
            return value
        if not isinstance(value, str) or not value:
            raise invalid(f"found {shown(value)}, wanted a path")
        if not value.isprintable():
            raise invalid(f"found {shown(value)}, wanted a path of printable characters")
        context = context_of(info)
        if context is None:
            return LocalPath(value, Path(value))
        path = context.root / value
        _check_confined(value, path, context)
        if context.check_files and value not in context.to_come:
            _check_exists(value, path, context, folder=folder)
        return LocalPath(value, path)

    return read


def _check_confined(text: str, path: Path, context: LoadContext) -> None:
    if Path(text).is_absolute() and not context.explicit_root:
        raise invalid(f"found the absolute path {text!r}, wanted a relative one", _ROOT_HINT)
    # realpath follows links and, unlike Path.resolve, does not raise on a loop of them.
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(context.root))
    if real.is_relative_to(home):
        return
    inside = Path(os.path.normpath(home / text)).is_relative_to(home)
    how = "is a symbolic link that leads" if inside else "leads"
    raise invalid(f"{shown(text)} {how} out of {context.root.absolute()} to {real}", _ROOT_HINT)


def _check_exists(text: str, path: Path, context: LoadContext, *, folder: bool | None) -> None:
    wanted = "a file or folder" if folder is None else "a folder" if folder else "a file"
    try:
        exists = path.exists()
        right_kind = folder is None or (path.is_dir() if folder else path.is_file())
    except OSError as error:
        raise invalid(f"{shown(text)} cannot be looked at: {error.strerror}") from error
    if not exists:
        raise invalid(
            f"{shown(text)} does not exist in {context.root.absolute()}, wanted {wanted}",
            _listing(path.parent) or _download_hint(text, folder=bool(folder)),
        )
    if not right_kind:
        found = "file" if path.is_file() else "folder"
        hint = "for weights of your own class use the model kind factory" if folder else ""
        raise invalid(f"{shown(text)} is a {found}, wanted {wanted}", hint)


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    listed = ", ".join(map(shown, names[:8])) + (", …" if len(names) > 8 else "")
    return f"{folder.absolute()} holds {listed}" if names else ""


def _download_hint(text: str, *, folder: bool) -> str:
    if folder and text.count("/") == 1:
        return f"models are local folders; hf download {text} --local-dir {text} fetches one"
    return ""


FolderPath: TypeAlias = Annotated[
    LocalPath,
    PlainValidator(_validator(folder=True)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
FilePath: TypeAlias = Annotated[
    LocalPath,
    PlainValidator(_validator(folder=False)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
# A file, or a folder.
DataPath: TypeAlias = Annotated[
    LocalPath,
    PlainValidator(_validator(folder=None)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
