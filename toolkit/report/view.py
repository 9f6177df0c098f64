"""``parity.json`` arranged for the page: what comes first, which rows stand together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.report.plots import Curve, Steps, error_histogram, step_plot
from toolkit.report.routing import RoutingView, arrange_routing

__all__ = ["Figure", "Gate", "OutputView", "StepFigure", "Summary", "View", "arrange"]

_GATES = {
    "ran": "Every case ran",
    "finite": "Finite where it must be",
    "rms": "Typical error",
    "max": "Largest error",
    "budget rms": "Typical error of a class",
    "budget p99": "99th percentile of a class",
    "budget max": "Largest error of a class",
    "choice": "Clear decisions kept",
    "divergence": "Divergence of distributions",
    "agreement": "Share of choices that changed",
    "mean divergence": "Mean divergence of distributions",
    "error": "Typical error of low precision",
    "routing": "Choice of members settled",
    "experts": "Same experts chosen",
    "near ties": "Few near ties of routers",
    "as shipped": "Routing seen is that of the file",
    "checker": "Valid ONNX",
    "domains": "Known operators",
    "dimensions": "Dimensions named and linked",
    "paths": "No machine's paths",
    "data": "Weights inside the folder",
    "repeat": "A second run gives the same bits",
    "identical rows": "Identical rows, identical outputs",
    "row order": "Order of rows does not matter",
    "one row": "One row alone as in a batch",
    "padding content": "Padding is not read",
    "padding length": "Length of padding does not matter",
}
_MOST_FIGURES = 6

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """One check of one output, with how much of its limit it used."""

    level: str
    title: str
    status: str
    used: float | None
    detail: str
    case: str


@dataclass(frozen=True)
class OutputView:
    """One output of one candidate: its gates and its rows of numbers."""

    name: str
    candidate: str
    status: str
    gates: tuple[Gate, ...]
    rows: tuple[_Row, ...]


@dataclass(frozen=True)
class Figure:
    """The error histogram of one output, over all kinds of case."""

    name: str
    svg: str
    exact: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class StepFigure:
    """The errors of one case step by step, in all runtimes."""

    name: str
    case: str
    svg: str


@dataclass(frozen=True)
class Summary:
    """The figures at the top; None where they do not apply."""

    largest: float
    used: float
    ratio: float | None
    agreed: int
    rows: int
    elements: int


@dataclass(frozen=True)
class View:
    """The page's content that follows from the proof."""

    passed: bool
    failures: tuple[OutputView, ...]
    summary: Summary
    outputs: tuple[OutputView, ...]
    wholes: tuple[OutputView, ...]
    figures: tuple[Figure, ...]
    more_figures: int
    steps: tuple[StepFigure, ...]
    routing: RoutingView | None


def arrange(parity: _Row) -> View:
    """Failed outputs first, otherwise in the order of the proof."""
    outputs = [_output(verdict, parity["classes"]) for verdict in parity["verdicts"]]
    outputs.sort(key=lambda output: output.status != "fail")
    names = list(dict.fromkeys(output.name for output in outputs if output.name))
    return View(
        passed=parity["verdict"] == "passed",
        failures=tuple(output for output in outputs if output.status == "fail"),
        summary=_summary(parity["classes"], outputs),
        outputs=tuple(output for output in outputs if output.name),
        wholes=tuple(output for output in outputs if not output.name),
        figures=tuple(_figure(name, parity) for name in names[:_MOST_FIGURES]),
        more_figures=max(0, len(names) - _MOST_FIGURES),
        steps=tuple(_step_figures(parity)),
        routing=arrange_routing(parity),
    )


def _output(verdict: _Row, classes: Sequence[_Row]) -> OutputView:
    name, candidate = verdict["output"], verdict["candidate"]
    gates = tuple(_gate(check) for check in verdict["checks"])
    states = {gate.status for gate in gates}
    status = next((state for state in ("fail", "pass") if state in states), "not run")
    rows = (row for row in classes if (row["output"], row["candidate"]) == (name, candidate))
    return OutputView(name, candidate, status, gates, tuple(rows))


def _gate(check: _Row) -> Gate:
    bounded = check["limit"] > 0
    used = check["measured"] / check["limit"] if bounded else None
    title = _GATES[check["gate"]]
    return Gate(check["level"], title, check["status"], used, check["detail"], check["case"])


def _summary(classes: Sequence[_Row], outputs: Sequence[OutputView]) -> Summary:
    ratios = [row["ratio"] for row in classes if row["ratio"] is not None]
    used = [gate.used for output in outputs for gate in output.gates if gate.used is not None]
    return Summary(
        largest=max((row["max"] for row in classes), default=0.0),
        used=max(used, default=0.0),
        ratio=max(ratios, default=None),
        agreed=sum(row["agreed"] for row in classes),
        rows=sum(row["rows"] for row in classes),
        elements=sum(row["n"] for row in classes),
    )


def _figure(name: str, parity: _Row) -> Figure:
    curves = [_curve(name, parity["baseline"], parity["healthy"], filled=True)]
    curves += [_curve(name, runner, parity["classes"]) for runner in parity["candidates"]]
    curves = [curve for curve in curves if curve.histogram]
    limits = [
        row["max_limit"]
        for row in parity["classes"]
        if row["output"] == name and row["max_limit"] is not None
    ]
    title = f"Errors of {name} by size"
    exact = tuple(
        (curve.label, curve.histogram.get(-64, 0), sum(curve.histogram.values()))
        for curve in curves
    )
    return Figure(name, error_histogram(curves, min(limits, default=None), title), exact)


def _step_figures(parity: _Row) -> Iterator[StepFigure]:
    rows = parity.get("steps", ())
    for output, case in dict.fromkeys((row["output"], row["case"]) for row in rows):
        own = [row for row in rows if (row["output"], row["case"]) == (output, case)]
        healthy = next((row["baseline"] for row in own if row["baseline"]), None)
        runs = [Steps(parity["baseline"] or "", healthy, filled=True)] if healthy else []
        runs += [Steps(row["candidate"], row["errors"]) for row in own]
        yield StepFigure(output, case, step_plot(runs, f"Errors of {output} in {case}"))


def _curve(output: str, runner: str | None, rows: Sequence[_Row], *, filled: bool = False) -> Curve:
    total: dict[int, int] = {}
    for row in rows:
        if row["output"] == output and row["candidate"] == runner:
            for exponent, number in row["histogram"]:
                total[exponent] = total.get(exponent, 0) + number
    return Curve(runner or "", total, filled)
