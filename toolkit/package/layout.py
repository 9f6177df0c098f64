"""Where things lie in a model repository, as Triton looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.bundle import LABELS

__all__ = ["CODE", "CONFIG", "GRAPH", "LABELS", "PLAN", "served_versions", "versions_of"]

CONFIG = "config.pbtxt"
GRAPH = "model.onnx"
PLAN = "model.plan"
CODE = "model.py"


def versions_of(model: Path) -> list[int]:
    """The versions that Triton sees in a model's folder, oldest first; not ``01``."""
    return sorted(
        int(path.name)
        for path in model.iterdir()
        if path.is_dir() and path.name.isdecimal() and str(int(path.name)) == path.name
    )


def served_versions(config: Any, there: list[int]) -> list[int]:
    """Those of the versions that are there which the version policy chooses."""
    policy = config.version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return there
    if kind == "specific":
        return [version for version in there if version in policy.specific.versions]
    return there[-max(1, policy.latest.num_versions) :]
