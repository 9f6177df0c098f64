"""Pages for people, with no script and no network: ``report.html``, a proof, and ``bench.html``."""

from toolkit.report.bench_page import render_bench, write_bench
from toolkit.report.context import FileEntry, Member, ReportContext, Table
from toolkit.report.page import render_report, write_report

__all__ = [
    "FileEntry",
    "Member",
    "ReportContext",
    "Table",
    "render_bench",
    "render_report",
    "write_bench",
    "write_report",
]
