"""What an inspection found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Inspection", "Section"]


@dataclass(frozen=True)
class Section:
    """Rows under column names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: ``checkpoint``, ``onnx``, ``bundle``, ``recipe`` or ``engine``.
        facts: Single values.
        sections: Lists.
    """

    kind: str
    facts: Mapping[str, Any]
    sections: tuple[Section, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        lists = {
            section.title: [dict(zip(section.columns, row, strict=True)) for row in section.rows]
            for section in self.sections
        }
        return {"kind": self.kind, **self.facts, **lists}
