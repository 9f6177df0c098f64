"""Where the kernels' source lies: beside this package, in a clone and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SOURCES", "headers"]

SOURCES = Path(__file__).parents[2] / "plugins_trt" / "topk_gating"


def headers() -> dict[str, str]:
    """Every header by its name, as a compiler that reads no files needs them."""
    return {path.name: path.read_text() for path in sorted(SOURCES.glob("*.h"))}
