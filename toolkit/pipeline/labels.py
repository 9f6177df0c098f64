"""What a classifier's outputs mean, as its checkpoints say it."""

from __future__ import annotations

from pathlib import Path

from toolkit.bundle import LABELS
from toolkit.pipeline.plan import Plan
from toolkit.sources import HuggingFaceSource

__all__ = ["write_labels"]

_HEADS = {"sequence-classification", "token-classification"}


def write_labels(plan: Plan, folder: Path) -> None:
    """Write a line for each label, where all classifiers of the plan say the same ones.

    Gates classify too, but their classes are members.
    """
    said = {
        _labels(leaf.origin)
        for _, leaf in plan.leaves()
        if not leaf.gates
        and isinstance(leaf.origin, HuggingFaceSource)
        and leaf.origin.head in _HEADS
    }
    labels = said.pop() if len(said) == 1 else ()
    if labels:
        (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")


def _labels(source: HuggingFaceSource) -> tuple[str, ...]:
    """In order; nothing where one is missing or would not fit on a line."""
    table = source.config.id2label or {}
    labels = tuple(str(table.get(index, "")) for index in range(len(table)))
    fits = all(label.strip() and len(label.splitlines()) == 1 for label in labels)
    return labels if fits else ()
