"""The model card of a merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.merge.plan import MergePlan
from toolkit.merge.write import Written

__all__ = ["card"]


def card(plan: MergePlan, config: str, written: Written, warnings: Sequence[str]) -> str:
    """Markdown with the front matter that model hubs read."""
    names = list(plan.models)
    tags = "merge, moe" if plan.method == "moe" else "merge"
    lines = ["---", "library_name: transformers", f"tags: [{tags}]", "base_model:"]
    lines += [f"- {json.dumps(_plain(name))}" for name in names]
    lines += ["---", "", "# Merged model", ""]
    lines += [f"{len(plan.outputs):,} tensors merged with `{plan.method}` from:", ""]
    lines += [f"- {_plain(name)}" for name in names]
    for warning in warnings:
        lines += ["", f"**Warning:** {_plain(warning)}"]
    lines += ["", "## Diagnostics", "", *_table(written.findings.values())]
    lines += [
        "",
        "Per tensor: `merge.json`. Every input tensor is accounted for in `manifest.json`.",
        "",
        "## Configuration",
        "",
        "````yaml",
        config.rstrip(),
        "````",
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text from a config, kept on one line and without markup."""
    return "".join(c if c.isprintable() and c not in "<>`" else "?" for c in text)


def _table(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Medians over tensors of what was found."""
    every = list(findings)
    rows = [
        (
            "smallest cosine between models",
            _median(min(f["cosines"]) for f in every if f.get("cosines")),
        ),
        (
            "task-vector norm / base norm",
            _median(max(f["norms"]) / f["base_norm"] for f in every if f.get("base_norm")),
        ),
        ("share of entries kept", _median(min(f["kept"]) for f in every if "kept" in f)),
        (
            "share of elements with sign conflicts",
            _median(f["sign_conflicts"] for f in every if "sign_conflicts" in f),
        ),
    ]
    shown = [(name, value) for name, value in rows if value is not None]
    branches = [f["branch"] for f in every if "branch" in f]
    counted = [f"| tensors by branch: {b} | {branches.count(b)} |" for b in sorted(set(branches))]
    if not shown and not counted:
        return ["Nothing to report."]
    return [
        "| | median over tensors |",
        "|---|--:|",
        *(f"| {name} | {value:.4g} |" for name, value in shown),
        *counted,
    ]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None
