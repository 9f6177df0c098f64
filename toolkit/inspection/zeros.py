"""Looks at a checkpoint's weights for zeros, and whether they lie as sparse kernels want them."""

from __future__ import annotations

from pathlib import Path

from toolkit.checkpoint import open_checkpoint
from toolkit.inspection.found import Inspection, Section
from toolkit.sparse import Pattern, check_pattern, reduction_axis

__all__ = ["inspect_zeros"]


def inspect_zeros(path: Path) -> Inspection:
    """Zeros of every matrix, and whether 2:4 holds along the axis that products sum over.

    That is what TensorRT's sparse kernels ask (``engine: {sparse: true}``). All weights are read,
    one tensor in memory at a time.

    Raises:
        CheckpointError: If it is no checkpoint.
    """
    checkpoint, pattern = open_checkpoint(path), Pattern(2, 4)
    axis = reduction_axis(checkpoint.config)
    rows: list[tuple[str, str, str, int]] = []
    for name, (_, entry) in checkpoint.tensors.items():
        if len(entry.shape) == 2:
            said = check_pattern(checkpoint.read(name), pattern, axis)
            holds = "yes" if said.holds == 1 else f"in {said.holds:.1%} of groups"
            rows.append((name, f"{said.zeros:.1%}", holds, entry.nbytes))
    held = [row for row in rows if row[2] == "yes"]
    share = sum(row[3] for row in held) / max(checkpoint.nbytes, 1)
    facts = {
        "matrices": len(rows),
        "2:4 holds in": len(held),
        "that is of all bytes": f"{share:.1%}",
        "along": f"the {'first' if axis == 0 else 'last'} axis, which products sum over",
    }
    columns = ("name", "zeros", "2:4", "bytes")
    return Inspection("checkpoint", facts, (Section("sparsity", columns, tuple(rows)),))
