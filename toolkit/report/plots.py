"""The figures of a proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil, floor, log10
from typing import Any

from toolkit.report.svg import DASHES, LIMIT, LINES, MUTED, figure, style

__all__ = ["Curve", "Load", "Steps", "error_histogram", "load_plot", "step_plot"]

_ZERO = -64  # the exponent under which exact zeros are counted


@dataclass(frozen=True)
class Curve:
    """Error counts by power of two, as in ``parity.json``: (exponent, count)."""

    label: str
    histogram: Mapping[int, int]
    filled: bool = False


@dataclass(frozen=True)
class Steps:
    """The error of every step of a case."""

    label: str
    errors: Sequence[float]
    filled: bool = False


@dataclass(frozen=True)
class Load:
    """How many slots each expert of a layer was given."""

    label: str
    slots: Sequence[int]
    filled: bool = False


def error_histogram(curves: Sequence[Curve], limit: float | None, title: str) -> str:
    """Share of elements by size of error, over a logarithmic axis, with the limit marked.

    Args:
        curves: The healthy error first, filled; then the candidates.
        limit: The strictest limit on the largest error, relative to the scale.
        title: Read to those who cannot see the figure, and the seed of the SVG's identifiers.
    """
    return figure(lambda axes: _draw(axes, curves, limit), title)


def step_plot(runs: Sequence[Steps], title: str) -> str:
    """The error of every step on a logarithmic axis: whether errors grow with the cache.

    Args:
        runs: The healthy error first, filled; then the candidates.
        title: As for ``error_histogram``.
    """
    return figure(lambda axes: _draw_steps(axes, runs), title)


def load_plot(loads: Sequence[Load], title: str) -> str:
    """The share of slots of every expert, and where an even load would lie.

    Args:
        loads: The reference first, filled; then a candidate.
        title: As for ``error_histogram``.
    """
    return figure(lambda axes: _draw_loads(axes, loads), title)


def _draw(axes: Any, curves: Sequence[Curve], limit: float | None) -> None:
    axes.set_facecolor("none")
    lines = cycle(zip(LINES, DASHES, strict=True))
    for curve in curves:
        edges, heights = _steps(curve.histogram)
        colour, dashes = (MUTED, "solid") if curve.filled else next(lines)
        if not heights:
            axes.plot([], [], color=colour, label=curve.label)
            continue
        axes.stairs(
            heights,
            edges,
            fill=curve.filled,
            color=colour,
            alpha=0.35 if curve.filled else 1,
            linewidth=1.6,
            linestyle=dashes,
            label=curve.label,
        )
    if limit:
        axes.axvline(limit, color=LIMIT, linewidth=1.6, linestyle=(0, (4, 2)), label="limit")
    _decorate(axes)


def _draw_steps(axes: Any, runs: Sequence[Steps]) -> None:
    axes.set_facecolor("none")
    lines = cycle(zip(LINES, DASHES, strict=True))
    for run in runs:
        steps = range(1, len(run.errors) + 1)
        # A logarithmic axis has no place for an exact step.
        errors = [error or float("nan") for error in run.errors]
        if run.filled:
            axes.fill_between(steps, errors, color=MUTED, alpha=0.35, label=run.label)
            continue
        colour, dashes = next(lines)
        axes.plot(steps, errors, color=colour, linestyle=dashes, linewidth=1.6, label=run.label)
    axes.set_yscale("log")
    sizes = [error for run in runs for error in run.errors if error]
    if sizes:  # whole decades: what rounding does from step to step should not look like a trend
        axes.set_ylim(10 ** floor(log10(min(sizes))), 10 ** ceil(log10(max(sizes)) + 1e-9))
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("step", color=MUTED)
    axes.set_ylabel("error, relative to the scale", color=MUTED)
    style(axes)


def _draw_loads(axes: Any, loads: Sequence[Load]) -> None:
    axes.set_facecolor("none")
    for load in loads:
        total = max(sum(load.slots), 1)
        axes.stairs(
            [100 * slots / total for slots in load.slots],
            [expert - 0.5 for expert in range(len(load.slots) + 1)],
            fill=load.filled,
            color=MUTED if load.filled else LINES[0],
            alpha=0.35 if load.filled else 1,
            linewidth=1.6,
            label=load.label,
        )
    count = len(loads[0].slots)
    axes.axhline(100 / count, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="even load")
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(0, count, max(1, ceil(count / 16))))
    axes.set_xlabel("expert", color=MUTED)
    axes.set_ylabel("% of slots", color=MUTED)
    style(axes)


def _decorate(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("error, relative to the output's scale", color=MUTED)
    axes.set_ylabel("% of elements", color=MUTED)
    axes.set_ylim(bottom=0)
    style(axes)


def _steps(histogram: Mapping[int, int]) -> tuple[list[float], list[float]]:
    """Bin edges and shares in per cent of all elements; exact zeros are counted, not drawn."""
    total = sum(histogram.values())
    exponents = [exponent for exponent in histogram if exponent > _ZERO]
    if not exponents:
        return [], []
    first, last = min(exponents), max(exponents)
    edges = [2.0**exponent for exponent in range(first - 1, last + 1)]
    return edges, [100 * histogram.get(e, 0) / total for e in range(first, last + 1)]
