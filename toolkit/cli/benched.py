"""What bench prints and saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from toolkit.bench import BenchResult
from toolkit.cli.terminal import show, table
from toolkit.report import write_bench

__all__ = ["save", "show_bench"]


def save(result: BenchResult, out: Path | None) -> Path | None:
    """Write ``bench.json`` and ``bench.html`` into ``out``, which is made; the folder."""
    if out is None:
        return None
    out.mkdir(parents=True, exist_ok=True)
    result.write(out / "bench.json")
    write_bench(out / "bench.html", result.data())
    return out


def show_bench(result: BenchResult, saved: Path | None, *, as_json: bool) -> None:
    """Tables of points, ratios and loads."""
    data = result.data()
    tables: list[Table | str] = []
    if data["points"]:
        tables.append(_points(result.subject, data["points"]))
    if data["ratios"]:
        tables.append(_ratios(data["ratios"]))
    if data["loads"]:
        tables.append(_loads(f"{result.subject} on {result.server}", data["loads"]))
    tables += [f"note: {note}" for note in result.notes]
    tables.append(f"Intervals: {result.intervals}.")
    if saved is not None:
        tables.append(f"Written: {saved / 'bench.json'} and {saved / 'bench.html'}")
    show(data, as_json=as_json, tables=tables)


def _points(name: str, points: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            _where(point), *_with_precision(point["latency_ms"]["p50"]),
            *(_figure(point["latency_ms"][share][0]) for share in ("p90", "p99")),
            _figure(point["runs_per_second"]),
            _figure(point["tokens_per_second"] or point["rows_per_second"]),
            "{loaded:,.0f} + {running:,.0f}".format(
                **{name: size / 1e6 for name, size in point["memory_bytes"].items()}
            ),
        )
        for point in points
    ]  # fmt: skip
    per = "tokens/s" if points[0]["tokens_per_second"] else "rows/s"
    columns = ["point", "p50 ms", "±", "p90", "p99", "runs/s", per, "MB"]
    return table(name, columns, rows, right=7)


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            _where(each), _figure(each["first_ms"]), _figure(each["second_ms"]),
            _interval(each["ratio"]), each["verdict"], each["rounds"] or "apart",
        )
        for each in ratios
    ]  # fmt: skip
    title = "{first} over {second}".format(**ratios[0])
    columns = ["point", "first ms", "second ms", "ratio", "first is", "rounds"]
    return table(title, columns, rows, right=5)


def _loads(title: str, loads: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            load["concurrency"], _figure(load["requests_per_second"]),
            _figure(load["rows_per_second"]), *_with_precision(load["latency_ms"]["p50"]),
            *(_figure(load["latency_ms"][share][0]) for share in ("p90", "p99")),
            load["errors"], "yes" if load["stable"] else "NO",
        )
        for load in loads
    ]  # fmt: skip
    columns = [
        "in flight", "requests/s", "rows/s", "p50 ms", "±", "p90", "p99", "errors", "steady",
    ]  # fmt: skip
    return table(f"{title}, client {loads[0]['client']}", columns, rows, right=8)


def _where(one: Mapping[str, Any]) -> str:
    kind = "" if one["kind"] == "run" else f" {one['kind']}"
    sizes = (f"{name} {size}" for name, size in one["dims"].items())
    return "\n".join([f"{one['runtime']}{kind}", *sizes])


def _with_precision(found: Sequence[float | None]) -> tuple[str, str]:
    """A value, and half its interval as a share of it."""
    value, low, high = found
    assert value is not None
    if low is None or high is None:
        return _figure(value), ""
    return _figure(value), f"{50 * (high - low) / value:.1f}%"


def _interval(found: Sequence[float | None]) -> str:
    value, low, high = found
    assert value is not None
    if low is None and high is None:
        return _figure(value)
    ends = ("?" if end is None else _figure(end) for end in (low, high))
    return f"{_figure(value)} ({' to '.join(ends)})"


def _figure(value: float) -> str:
    """Four digits without an exponent."""
    if value == 0:
        return "0"
    digits = 0
    while digits < 9 and abs(value) * 10**digits < 1000:
        digits += 1
    return f"{value:,.{digits}f}"
