"""``bench.html``: a measurement for people, one page without script or network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit._version import __version__
from toolkit.report.bench_plots import Range, load_plot, range_plot
from toolkit.report.page import environment, write_whole

__all__ = ["render_bench", "write_bench"]


def render_bench(data: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        data: The content of ``bench.json``, of which ``samples_ms`` are not shown.
    """
    template = environment().get_template("bench.html.j2")
    return template.render(data=data, plots=_plots(data), titled=_titled, version=__version__)


def write_bench(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page; an earlier file is replaced only by a complete one."""
    write_whole(path, render_bench(data))


def _plots(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures as SVG with their captions."""
    found = []
    if data["points"]:
        rows = [
            Range(_titled(point, data["points"]), point["latency_ms"]) for point in data["points"]
        ]
        title = "Latency of one run by point"
        found.append((range_plot(rows, "ms", title), f"{title}, with 95% intervals."))
    if data["ratios"]:
        title = "Time of {first} over that of {second}".format(**data["ratios"][0])
        rows = [
            Range(_titled(each, data["ratios"]), {"ratio": each["ratio"]})
            for each in data["ratios"]
        ]
        plot = range_plot(rows, "ratio of times", title, reference=1.0)
        found.append((plot, f"{title}: left of the line is faster."))
    if data["loads"]:
        title = "Latency over throughput"
        found.append((load_plot(data["loads"], title), f"{title} of the server."))
    return found


def _titled(one: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> str:
    """What tells it from the others: its sizes, the kind of step, the runtime if there are two."""
    sizes = ", ".join(f"{name} {size}" for name, size in one["dims"].items()) or "fixed sizes"
    kind = "" if one["kind"] == "run" else f"{one['kind']}: "
    several = len({each["runtime"] for each in every}) > 1
    return (f"{one['runtime']}, " if several else "") + kind + sizes
