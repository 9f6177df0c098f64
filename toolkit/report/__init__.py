"""``report.html``: one page that shows a proof to a person, with no script and no network."""

from toolkit.report.context import FileEntry, Member, ReportContext, Table
from toolkit.report.page import render_report, write_report

__all__ = ["FileEntry", "Member", "ReportContext", "Table", "render_report", "write_report"]
