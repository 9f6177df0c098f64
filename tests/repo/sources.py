"""The project's files, as git sees them, for the tests of the whole repository."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "python_files", "tracked"]

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked() -> tuple[Path, ...]:
    """Every tracked file that exists, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = (Path(name) for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if (ROOT / path).is_file())


def python_files(*folders: str) -> list[Path]:
    """Tracked Python files below the given folders, relative to the root."""
    return [path for path in tracked() if path.suffix == ".py" and path.parts[0] in folders]
