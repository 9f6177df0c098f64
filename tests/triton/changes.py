"""Changes to a packaged model: edits of its configuration, replacements in the text, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.package.schema import parse_config, print_config

__all__ = [
    "Change",
    "Edit",
    "both",
    "clears",
    "configured",
    "in_text",
    "setitem",
    "sets",
    "written",
]

Edit = Callable[[Any], object]
Change = Callable[[Path], object]


def configured(*edits: Edit) -> Change:
    """Edits of the configuration as a message."""

    def change(folder: Path) -> None:
        path = folder / "config.pbtxt"
        config = parse_config(path.read_text(), str(path))
        for edit in edits:
            edit(config)
        path.write_text(print_config(config))

    return change


def written(*pairs: tuple[str, str]) -> Change:
    """Replacements in the text of the configuration."""

    def change(folder: Path) -> None:
        path = folder / "config.pbtxt"
        text = path.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new, 1)
        path.write_text(text)

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def sets(**fields: Any) -> Edit:
    return lambda c: [setattr(c, name, value) for name, value in fields.items()]


def setitem(field: Any, values: Any) -> None:
    del field[:]
    field.extend(values)


def clears(*names: str) -> Edit:
    return lambda c: [c.ClearField(name) for name in names]


def in_text(text: str) -> Change:
    return lambda folder: (folder / "config.pbtxt").write_text(text)
