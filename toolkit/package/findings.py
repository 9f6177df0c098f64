"""What is wrong with a model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["CheckReport", "Finding"]

Level = Literal["refused", "wrong", "changed"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one model.

    Attributes:
        model: The folder's name.
        level: ``refused``: a server does not load it; ``wrong``: it loads and does not do what it
            says; ``changed``: a file differs from its manifest.
        message: What was found, and what was wanted.
    """

    model: str
    level: Level
    message: str


@dataclass(frozen=True)
class CheckReport:
    """All of it.

    Attributes:
        repository: The folder.
        models: Every model in it.
        findings: In the order of the models.
        unchecked: What could not be looked into, one sentence each.
    """

    repository: Path
    models: tuple[str, ...]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()

    def loads(self, model: str) -> bool:
        """Whether a server is expected to load it."""
        return not any(f.model == model and f.level == "refused" for f in self.findings)
