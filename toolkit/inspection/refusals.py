"""What builders of engines will refuse in a graph, as rows of an inspection."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from toolkit.engine import Flavour
from toolkit.inspection.found import Section

__all__ = ["checked"]

_TARGETS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")


def checked(
    path: Path, target: str, ranges: Collection[str] | None
) -> tuple[dict[str, Any], tuple[Section, ...]]:
    """A fact for each builder, and a line for each finding of the static checker.

    Args:
        path: The ONNX file.
        target: Whose builder; any but a builder's name is both.
        ranges: Names of the dimensions that have a range; None does not ask for ranges.
    """
    import graphs  # noqa: PLC0415

    facts: dict[str, Any] = {}
    rows: list[tuple[object, ...]] = []
    for each in [name for name in _TARGETS if name == target] or _TARGETS:
        found = graphs.check_tensorrt(path, each, "", ranges)
        always = sum(violation.always for violation in found)
        some = len(found) - always
        facts[f"refused by {each}"] = (
            f"{always}, and {some} by some versions only" if found else "nothing that is known"
        )
        rows += [
            (each, v.rule, v.node, f"found {v.found}, wanted {v.wanted}", v.versions) for v in found
        ]
    return facts, tuple(_sections(rows))


def _sections(rows: list[tuple[object, ...]]) -> Iterator[Section]:
    if rows:
        columns = ("builder", "rule", "node", "what", "versions")
        yield Section("what builders refuse", columns, tuple(rows))
