"""The figures of a measurement: latencies by point, ratios, a server under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.report.svg import INK, LIMIT, LINES, MUTED, figure, style

__all__ = ["Range", "load_plot", "range_plot"]

_MARKS = ("o", "s", "D")
_WRAPPED = 34


@dataclass(frozen=True)
class Range:
    """A row of the figure: values by series, each with the ends of its interval or None."""

    label: str
    values: Mapping[str, tuple[float, float | None, float | None]]


def range_plot(
    rows: Sequence[Range], unit: str, title: str, *, reference: float | None = None
) -> str:
    """Values with their intervals, a row for each point, on a logarithmic axis.

    Args:
        rows: From top to bottom.
        unit: What the axis says.
        title: As for ``figure``.
        reference: Where a line is drawn: 1 for ratios.
    """
    height = 0.9 + 0.42 * len(rows)
    return figure(lambda axes: _draw_ranges(axes, rows, unit, reference), title, (8.4, height))


def load_plot(loads: Sequence[Mapping[str, Any]], title: str) -> str:
    """The median and the 99th percentile over requests a second, a mark for each concurrency."""
    return figure(lambda axes: _draw_loads(axes, loads), title, (6.4, 3.4))


def _draw_ranges(axes: Any, rows: Sequence[Range], unit: str, reference: float | None) -> None:
    axes.set_facecolor("none")
    places = range(len(rows), 0, -1)
    for index, name in enumerate(rows[0].values):
        values = [row.values[name] for row in rows]
        middles = [value for value, _, _ in values]
        axes.errorbar(
            middles,
            places,
            xerr=[
                [v - (v if low is None else low) for v, low, _ in values],
                [(v if high is None else high) - v for v, _, high in values],
            ],
            fmt=_MARKS[index % len(_MARKS)],
            markersize=5,
            color=LINES[index % len(LINES)],
            elinewidth=1.6,
            capsize=3,
            label=name,
        )
    if reference is not None:
        axes.axvline(reference, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 2)), label="equal")
    axes.set_xscale("log")
    _ticks(axes, [end for row in rows for value in row.values.values() for end in value if end])
    axes.set_yticks(list(places), [_short(row.label) for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlabel(unit, color=MUTED)
    style(axes)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _ticks(axes: Any, values: Sequence[float]) -> None:
    """Plain numbers at 1, 2 and 5 of every decade; a narrow range has ticks of its own."""
    from matplotlib import ticker  # noqa: PLC0415

    if max(values) < 5 * min(values):
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    else:
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _draw_loads(axes: Any, loads: Sequence[Mapping[str, Any]]) -> None:
    axes.set_facecolor("none")
    for index, name in enumerate(("p50", "p99")):
        rates = [load["requests_per_second"] for load in loads]
        values = [load["latency_ms"][name][0] for load in loads]
        colour = LINES[index]
        axes.plot(rates, values, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
    for load in loads:
        at = (load["requests_per_second"], load["latency_ms"]["p99"][0])
        axes.annotate(
            str(load["concurrency"]), at, textcoords="offset points", xytext=(0, 6),
            ha="center", color=MUTED, fontsize=9,
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_xlabel("requests a second (figures: requests in flight)", color=MUTED)
    axes.set_ylabel("latency, ms", color=MUTED)
    style(axes)


def _short(label: str) -> str:
    return label if len(label) <= _WRAPPED else label[: _WRAPPED - 1] + "…"
