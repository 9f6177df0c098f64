"""Renders the page and writes it, whole or not at all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from toolkit._version import __version__
from toolkit.report import numbers
from toolkit.report.context import ReportContext
from toolkit.report.view import arrange

__all__ = ["environment", "render_report", "write_report", "write_whole"]


def render_report(context: ReportContext) -> str:
    """The page as text: the same for the same context.

    Names come from recipes and model files, which may be a stranger's, so everything but our own
    figures and style sheet is escaped, and the page's policy allows no script and no request.
    """
    template = environment().get_template("report.html.j2")
    return template.render(
        context=context, parity=context.parity, view=arrange(context.parity), version=__version__
    )


def write_report(path: Path, context: ReportContext) -> None:
    """Write ``report.html``; an earlier file is replaced only by a complete one."""
    write_whole(path, render_report(context))


def write_whole(path: Path, text: str) -> None:
    """Write a page; an earlier file is replaced only by a complete one."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def environment() -> jinja2.Environment:
    """Templates of this package, with the filters of ``numbers``."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("toolkit.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {name: getattr(numbers, name) for name in numbers.__all__}
    return made
