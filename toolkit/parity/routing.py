"""Rows whose members a gate chose by less than rounding: not compared, but counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.feeds import Case
from toolkit.parity.options import OutputSpec
from toolkit.parity.results import Check, Verdict
from toolkit.parity.store import OutputStore
from toolkit.runtime.ensemble import undecided

__all__ = ["Routing", "routing"]

# With more of an output left out than this, too little of it would be proven.
_MOST = 0.5


@dataclass(frozen=True)
class Routing:
    """What the reference says about its gates' choices.

    Attributes:
        verdicts: One for each output that a gate with ``top_k`` decides about.
        undecided: Indices of the cases that hold an undecided row.
    """

    verdicts: tuple[Verdict, ...]
    undecided: frozenset[int]


def routing(
    reference: str, cases: Sequence[Case], outputs: Sequence[OutputSpec], store: OutputStore
) -> Routing:
    """Count the undecided rows in what ``record`` kept.

    A gate that ties everywhere, as one whose weights are all zero, would leave nothing to compare:
    the check fails where more than half of an output's rows are undecided.
    """
    verdicts: list[Verdict] = []
    touched: set[int] = set()
    for output in outputs:
        mark = undecided(output.name)
        masks = {index: store[index, mark] for index in range(len(cases)) if (index, mark) in store}
        if not masks:
            continue
        counts = {index: int(mask.sum()) for index, mask in masks.items()}
        touched.update(index for index, count in counts.items() if count)
        rows, open_rows = sum(mask.size for mask in masks.values()), sum(counts.values())
        share = open_rows / max(rows, 1)
        worst = max(counts, key=lambda index: counts[index] / max(masks[index].size, 1))
        detail = f"{output.name}: {open_rows} of {rows} rows hang on a near tie of a gate"
        detail += " and are not compared"
        check = Check(
            "G3",
            "routing",
            "pass" if share <= _MOST else "fail",
            share,
            _MOST,
            cases[worst].name if open_rows else "",
            detail,
        )
        verdicts.append(Verdict(reference, "", "values", (check,)))
    return Routing(tuple(verdicts), frozenset(touched))
