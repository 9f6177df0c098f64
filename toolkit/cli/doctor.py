"""``toolkit doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["doctor_command"]


def doctor_command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what this machine can do, and the command that mends what it cannot."""
    from dataclasses import asdict

    from toolkit.cli.terminal import show, table
    from toolkit.doctor import examine

    findings = list(examine())
    rows = [("yes" if f.ok else "no", f.name, f.detail, f.mend or f.enables) for f in findings]
    show(
        [asdict(finding) for finding in findings],
        as_json=json,
        tables=[table("This machine", ["", "what", "found", "needed for, or how to get it"], rows)],
    )
