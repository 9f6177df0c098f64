"""What a merge gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.merge.plan import MergePlan

__all__ = ["MergeReport"]


@dataclass(frozen=True)
class MergeReport:
    """What a merge gave.

    Attributes:
        out: The folder.
        plan: What was done.
        findings: Diagnostics by tensor, as in ``merge.json``.
        warnings: What a reader should know.
        seconds: Time from the first check to the published folder.
    """

    out: Path
    plan: MergePlan
    findings: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without the findings, which ``merge.json`` holds."""
        return {
            "out": str(self.out),
            "method": self.plan.method,
            "tensors": len(self.plan.outputs),
            "bytes_written": self.plan.nbytes,
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 2),
        }
