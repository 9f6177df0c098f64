"""The dimensions of a value."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["Dim", "dims_of"]

Dim = int | str | None


def dims_of(shape: ir.Shape | None) -> tuple[Dim, ...]:
    """Sizes, names of symbolic dimensions, None where nothing is known; empty without a shape."""
    return tuple(dim if isinstance(dim, int) else dim.value for dim in shape or ())
