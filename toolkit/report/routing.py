"""Layers of experts on the page: where tokens went, and who was busy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.report.plots import Load, load_plot

__all__ = ["LoadFigure", "RoutingView", "arrange_routing"]

_MOST_FIGURES = 12

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class LoadFigure:
    """How often each expert of a layer was chosen."""

    layer: str
    experts: int
    k: int
    imbalance: float
    idle: int
    svg: str


@dataclass(frozen=True)
class RoutingView:
    """The rows of ``parity.json``'s experts, and a figure for each layer.

    Attributes:
        rows: For each candidate and layer.
        figures: Of the last candidate, which is what ships, beside the reference.
        more_figures: Layers without one.
        tokens: Of all rows together; ``near_ties`` and ``beyond`` likewise.
    """

    rows: tuple[_Row, ...]
    figures: tuple[LoadFigure, ...]
    more_figures: int
    tokens: int
    near_ties: int
    beyond: int


def arrange_routing(parity: _Row) -> RoutingView | None:
    """None for a proof of a model without experts."""
    rows: Sequence[_Row] = parity.get("experts", ())
    if not rows:
        return None
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    last = {row["layer"]: row for row in rows}
    shown = [last[layer] for layer in layers[:_MOST_FIGURES]]
    return RoutingView(
        rows=tuple(rows),
        figures=tuple(_figures(shown, parity["reference"])),
        more_figures=max(0, len(layers) - _MOST_FIGURES),
        tokens=sum(row["tokens"] for row in rows),
        near_ties=sum(row["near_ties"] for row in rows),
        beyond=sum(row["beyond"] for row in rows),
    )


def _figures(rows: Sequence[_Row], reference: str) -> Iterator[LoadFigure]:
    for row in rows:
        loads = [
            Load(reference, row["reference_load"], filled=True),
            Load(row["candidate"], row["load"]),
        ]
        yield LoadFigure(
            row["layer"], row["experts"], row["k"], row["imbalance"], row["idle"],
            load_plot(loads, f"Load of the experts of {row['layer']}"),
        )  # fmt: skip
