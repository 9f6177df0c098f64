"""Two proofs of one bundle as one report."""

from __future__ import annotations

from dataclasses import replace

from toolkit.parity.results import ParityReport, verdict_of

__all__ = ["joined"]


def joined(first: ParityReport, second: ParityReport) -> ParityReport:
    """``first`` with what ``second`` found, which had a reference and bounds of its own.

    The bounds that are printed are the first's; every check carries the limit it was held against.
    """
    verdicts = (*second.verdicts, *first.verdicts)
    return replace(
        first,
        verdict=verdict_of(verdicts, first.cases),
        candidates=(*second.candidates, *first.candidates),
        verdicts=verdicts,
        classes=(*second.classes, *first.classes),
        healthy=(*second.healthy, *first.healthy),
        worst=(*second.worst, *first.worst),
        steps=(*second.steps, *first.steps),
        experts=(*second.experts, *first.experts),
        notes=(*first.notes, f"{second.candidates[0]} was held against {second.reference}"),
    )
