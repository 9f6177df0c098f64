"""Figures as SVG text that takes its colours from the page, so that both colour schemes work."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil, floor, log10
from typing import Any

__all__ = ["Curve", "Load", "Steps", "error_histogram", "load_plot", "step_plot"]

# matplotlib writes literal colours; these stand-ins become CSS variables afterwards.
_INK, _MUTED, _LIMIT = "#010101", "#020202", "#030303"
_LINES = ("#040404", "#050505", "#060606", "#070707")
# Healthy candidates often have one and the same curve: the later, dashed, lets the first be seen.
_DASHES = ("solid", (0, (5, 3)), (0, (2, 2)), (0, (1, 2)))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LIMIT: "var(--fail)",
    **{colour: f"var(--line-{index})" for index, colour in enumerate(_LINES)},
}
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
    return _figure(lambda axes: _draw(axes, curves, limit), title)


def step_plot(runs: Sequence[Steps], title: str) -> str:
    """The error of every step on a logarithmic axis: whether errors grow with the cache.

    Args:
        runs: The healthy error first, filled; then the candidates.
        title: As for ``error_histogram``.
    """
    return _figure(lambda axes: _draw_steps(axes, runs), title)


def load_plot(loads: Sequence[Load], title: str) -> str:
    """The share of slots of every expert, and where an even load would lie.

    Args:
        loads: The reference first, filled; then a candidate.
        title: As for ``error_histogram``.
    """
    return _figure(lambda axes: _draw_loads(axes, loads), title)


def _figure(draw: Callable[[Any], None], title: str) -> str:
    import matplotlib as mpl  # noqa: PLC0415  (slow to load; only a written report needs it)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10.5}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.9, 2.9), layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg")
    return _inline(text.getvalue(), title)


def _draw(axes: Any, curves: Sequence[Curve], limit: float | None) -> None:
    axes.set_facecolor("none")
    lines = cycle(zip(_LINES, _DASHES, strict=True))
    for curve in curves:
        edges, heights = _steps(curve.histogram)
        colour, dashes = (_MUTED, "solid") if curve.filled else next(lines)
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
        axes.axvline(limit, color=_LIMIT, linewidth=1.6, linestyle=(0, (4, 2)), label="limit")
    _decorate(axes)


def _draw_steps(axes: Any, runs: Sequence[Steps]) -> None:
    axes.set_facecolor("none")
    lines = cycle(zip(_LINES, _DASHES, strict=True))
    for run in runs:
        steps = range(1, len(run.errors) + 1)
        # A logarithmic axis has no place for an exact step.
        errors = [error or float("nan") for error in run.errors]
        if run.filled:
            axes.fill_between(steps, errors, color=_MUTED, alpha=0.35, label=run.label)
            continue
        colour, dashes = next(lines)
        axes.plot(steps, errors, color=colour, linestyle=dashes, linewidth=1.6, label=run.label)
    axes.set_yscale("log")
    sizes = [error for run in runs for error in run.errors if error]
    if sizes:  # whole decades: what rounding does from step to step should not look like a trend
        axes.set_ylim(10 ** floor(log10(min(sizes))), 10 ** ceil(log10(max(sizes)) + 1e-9))
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("step", color=_MUTED)
    axes.set_ylabel("error, relative to the scale", color=_MUTED)
    _style(axes)


def _draw_loads(axes: Any, loads: Sequence[Load]) -> None:
    axes.set_facecolor("none")
    for load in loads:
        total = max(sum(load.slots), 1)
        axes.stairs(
            [100 * slots / total for slots in load.slots],
            [expert - 0.5 for expert in range(len(load.slots) + 1)],
            fill=load.filled,
            color=_MUTED if load.filled else _LINES[0],
            alpha=0.35 if load.filled else 1,
            linewidth=1.6,
            label=load.label,
        )
    count = len(loads[0].slots)
    axes.axhline(100 / count, color=_MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="even load")
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(0, count, max(1, ceil(count / 16))))
    axes.set_xlabel("expert", color=_MUTED)
    axes.set_ylabel("% of slots", color=_MUTED)
    _style(axes)


def _decorate(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("error, relative to the output's scale", color=_MUTED)
    axes.set_ylabel("% of elements", color=_MUTED)
    axes.set_ylim(bottom=0)
    _style(axes)


def _style(axes: Any) -> None:
    axes.tick_params(which="both", colors=_MUTED, labelcolor=_MUTED, length=3)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_MUTED)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, labelcolor=_INK,
        fontsize=9.5, handlelength=1.4, borderaxespad=0, columnspacing=1.2,
    )  # fmt: skip


def _steps(histogram: Mapping[int, int]) -> tuple[list[float], list[float]]:
    """Bin edges and shares in per cent of all elements; exact zeros are counted, not drawn."""
    total = sum(histogram.values())
    exponents = [exponent for exponent in histogram if exponent > _ZERO]
    if not exponents:
        return [], []
    first, last = min(exponents), max(exponents)
    edges = [2.0**exponent for exponent in range(first - 1, last + 1)]
    return edges, [100 * histogram.get(e, 0) / total for e in range(first, last + 1)]


def _inline(svg: str, title: str) -> str:
    """The bare ``<svg>`` element: without prolog, date and numbered identifiers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"', "", body)
    body = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf"<svg \1 {_label(title)}>", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return body.strip()


def _label(title: str) -> str:
    from markupsafe import escape  # noqa: PLC0415

    # A backslash would start a group reference in the substitution that receives this text.
    quoted = str(escape(title)).replace("\\", r"\\")
    return f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{quoted}"'
