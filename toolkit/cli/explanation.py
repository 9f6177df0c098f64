"""What localisation, saved cases and the bisection of passes print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from toolkit.cli.terminal import pairs, show, table

if TYPE_CHECKING:
    from toolkit.parity.explain import Explanation, Suspect
    from toolkit.pipeline import Bisection, SavedCase

__all__ = ["explanation_data", "explanation_tables", "show_bisection", "show_saved_case"]


def explanation_data(found: Explanation) -> Any:
    """For ``--json``."""
    return json.loads(found.to_json())


def explanation_tables(found: Explanation) -> list[Table | str]:
    """The first suspect in full, the others in a line each, and how it was measured."""
    shown: list[Table | str] = []
    if found.suspects:
        first, *others = found.suspects
        shown.append(pairs(_title(first), _facts(first, found)))
        if others:
            rows = [(s.node, s.op, f"{s.samples}", f"{s.ratio:.3g}") for s in others]
            shown.append(table("Further suspects", ["node", "op", "samples", "R"], rows, right=2))
    else:
        shown.append(f"No node leaves its budget (R <= {found.limit:g}) in these samples.")
    if found.findings:
        rows2 = [(f.subject, f.detail) for f in found.findings[:20]]
        title = f"Differences from a fresh export of the recipe: {len(found.findings)}"
        shown.append(table(title, ["where", "what"], rows2))
    measured = (
        f"{found.values} values of {found.nodes} nodes held against float64 in "
        f"{len(found.samples)} samples, {found.seconds:.2f} s"
    )
    rest = [f"{len(found.unmatched)} values have no counterpart"] if found.unmatched else []
    rest += [f"{len(found.left_out)} values inside If or Loop left out"] if found.left_out else []
    shown.append(escape("; ".join([measured, *rest])))
    return [*shown, *(escape(f"note: {note}") for note in found.notes)]


def _title(first: Suspect) -> str:
    if first.within:
        return f"No node leaves its budget; the first whose values changed is {first.node}"
    return f"The first node that leaves its budget is {first.node}"


def _facts(first: Suspect, found: Explanation) -> dict[str, Any]:
    facts = {
        "operator": first.op,
        "inside": first.call,
        "member": first.member,
        "expert": first.expert,
        "PyTorch module": first.module,
        "source": first.source,
        "R": f"{first.ratio:.4g} times the healthy error, {found.limit:g} is the most",
        "in": f"{first.samples} of {len(found.samples)} samples, most in {first.sample!r}",
        "error": f"{first.error:.3g} root mean square, {first.healthy:.3g} is healthy",
        "worst": f"{first.found:.9g} at {list(first.index)}, PyTorch says {first.reference:.9g}",
        "behind": ", ".join(first.through),
        "because": "\n".join(first.findings),
    }
    return {name: text for name, text in facts.items() if text}


def show_saved_case(saved: SavedCase, *, as_json: bool) -> None:
    """Where the folder is and what the script in it will say."""
    rows = [
        (b.output, f"{b.rms:.3g}", f"{b.rms_limit:.3g}", f"{b.max:.3g}", f"{b.max_limit:.3g}")
        for b in saved.bounds
    ]
    columns = ["output", "rms error", "limit", "largest error", "limit"]
    verdict = "[green]within its limits[/green]" if saved.passed else "[red]FAILS[/red]"
    command = escape(f"python {saved.folder / 'reproduce.py'}")
    data = {
        "folder": str(saved.folder),
        "case": saved.case,
        "passed": saved.passed,
        "bounds": [asdict(bound) for bound in saved.bounds],
    }
    title = f"Case {saved.case!r} in {saved.folder}"
    tables: list[Table | str] = [table(title, columns, rows, right=4)]
    show(data, as_json=as_json, tables=[*tables, f"{verdict}; {command} shows it"])


def show_bisection(found: Bisection, *, as_json: bool) -> None:
    """The stages and the first that fails."""
    rows = [(s.name, str(s.sites), s.verdict, s.detail) for s in found.stages]
    culprit = found.culprit
    if culprit is None:
        verdict = "[green]the proof passes after every pass[/green]"
    elif culprit.name == "fuse":
        verdict = "[red]the proof fails before any pass[/red]: parity --explain names the node"
    else:
        verdict = f"[red]{escape(culprit.name)} is the first pass after which the proof fails[/red]"
    data = {
        "culprit": culprit.name if culprit else None,
        "stages": [asdict(stage) for stage in found.stages],
    }
    columns = ["after", "sites", "proof", "what fails"]
    show(data, as_json=as_json, tables=[table("Proof after each pass", columns, rows), verdict])
