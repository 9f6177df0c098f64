"""Figures as SVG text that takes its colours from the page, so that both colour schemes work."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

__all__ = ["DASHES", "INK", "LIMIT", "LINES", "MUTED", "figure", "style"]

# matplotlib writes literal colours; these stand-ins become CSS variables afterwards.
INK, MUTED, LIMIT = "#010101", "#020202", "#030303"
LINES = ("#040404", "#050505", "#060606", "#070707")
# Healthy candidates often have one and the same curve: the later, dashed, lets the first be seen.
DASHES = ("solid", (0, (5, 3)), (0, (2, 2)), (0, (1, 2)))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LIMIT: "var(--fail)",
    **{colour: f"var(--line-{index})" for index, colour in enumerate(LINES)},
}


def figure(draw: Callable[[Any], None], title: str, size: tuple[float, float] = (4.9, 2.9)) -> str:
    """What ``draw`` puts on the axes, as an ``<svg>`` element.

    Args:
        draw: Given matplotlib's axes.
        title: Read to those who cannot see the figure, and the seed of the SVG's identifiers.
        size: In inches.
    """
    import matplotlib as mpl  # noqa: PLC0415  (slow to load; only a written report needs it)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10.5}
    with mpl.rc_context(settings):
        drawn = Figure(figsize=size, layout="constrained")
        drawn.patch.set_alpha(0)
        FigureCanvasSVG(drawn)
        axes = drawn.add_subplot()
        draw(axes)
        text = io.StringIO()
        drawn.savefig(text, format="svg")
    return _inline(text.getvalue(), title)


def style(axes: Any) -> None:
    """Quiet axes, and the legend above them."""
    axes.tick_params(which="both", colors=MUTED, labelcolor=MUTED, length=3)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(MUTED)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, labelcolor=INK,
        fontsize=9.5, handlelength=1.4, borderaxespad=0, columnspacing=1.2,
    )  # fmt: skip


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
