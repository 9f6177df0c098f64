"""What a report shows: plain values, gathered by whoever ran the export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FileEntry", "Member", "ReportContext", "Table"]


@dataclass(frozen=True)
class Member:
    """A model of the recipe; an ensemble has members of its own.

    Attributes:
        name: As in the recipe.
        detail: One line: the kind of model and where it came from, or how members are combined.
        weight: Its share in the ensemble above it; None at the top.
        members: What it is made of.
    """

    name: str
    detail: str = ""
    weight: float | None = None
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its name there, size and SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Table:
    """A further table, for instance accuracies or latencies.

    Attributes:
        title: Its heading.
        columns: Column titles; the first column names the row, the others are set as numbers.
        rows: Cells, already formatted, as many in each row as there are columns.
        note: A line below, for example how it was measured.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class ReportContext:
    """Everything on the page.

    Attributes:
        title: Of the page; usually the recipe's name.
        parity: The content of ``parity.json``: the verdict and every number.
        model: The recipe's model, as a tree.
        lineage: Lines saying what went in, for example files with their hashes.
        environment: Versions by package; no path or host name belongs here.
        files: What the bundle holds.
        tables: Further tables, shown below the summary.
    """

    title: str
    parity: Mapping[str, Any]
    model: Member | None = None
    lineage: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    tables: tuple[Table, ...] = ()
