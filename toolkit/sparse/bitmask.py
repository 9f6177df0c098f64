"""A matrix with many zeros as its other values and one bit for each place.

The layout is ``sparse-bitmask`` of the compressed-tensors library: for a tensor ``w`` of R rows of
C values, ``w.compressed`` [nonzeros] in the tensor's type, row after row; ``w.bitmask``
uint8 [R, ceil(C / 8)], where bit c of a row, least significant first, says that place c has one;
``w.row_offsets`` int64 [R], where each row's values begin; ``w.shape`` int64. Rows are those of the
last axis. Only what is zero in all bits is left out, so that -0.0 and NaN come back as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import CheckpointError

__all__ = ["PARTS", "compress", "compressed_bytes", "restore"]

PARTS = ("shape", "compressed", "bitmask", "row_offsets")
"""What stands behind a tensor's name."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compress(tensor: Tensor) -> dict[str, Tensor]:
    """The four parts of a tensor of one axis or more, by their names in ``PARTS``."""
    rows = tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1]).contiguous()
    bits = rows.view(_BITS[tensor.element_size()])  # some types cannot be indexed
    mask = bits != 0
    counts = mask.sum(dim=1)
    packed = np.packbits(mask.numpy(), axis=1, bitorder="little")
    return {
        "shape": torch.tensor(tensor.shape, dtype=torch.int64),
        "compressed": bits[mask].view(tensor.dtype),
        "bitmask": torch.from_numpy(packed),
        "row_offsets": torch.cumsum(counts, 0) - counts,
    }


def compressed_bytes(tensor: Tensor) -> int:
    """How many bytes ``compress`` would give."""
    width = tensor.shape[-1]
    rows = math.prod(tensor.shape[:-1])
    kept = int(torch.count_nonzero(tensor.contiguous().view(_BITS[tensor.element_size()])))
    return kept * tensor.element_size() + rows * (math.ceil(width / 8) + 8) + 8 * tensor.dim()


def restore(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    """The tensor, in every bit.

    Args:
        name: What it is called in errors.
        parts: What ``compress`` gave.

    Raises:
        CheckpointError: If the parts do not belong together.
    """
    shape, values, bits = (parts[part] for part in PARTS[:3])
    sizes = [int(size) for size in shape]
    if not sizes or min(sizes) < 0:
        raise CheckpointError(f"{name}.shape is {sizes}, and sizes of one axis or more were wanted")
    width, rows = sizes[-1], math.prod(sizes[:-1])
    if tuple(bits.shape) != (rows, math.ceil(width / 8)) or bits.dtype != torch.uint8:
        raise CheckpointError(
            f"{name}.bitmask is {bits.dtype} {list(bits.shape)}, wanted a bit for each of "
            f"{rows} x {width} places"
        )
    places = np.unpackbits(bits.numpy(), axis=1, count=width, bitorder="little")
    mask = torch.from_numpy(places).bool()
    count = int(mask.sum())
    if tuple(values.shape) != (count,):
        raise CheckpointError(
            f"{name}.compressed has the shape {list(values.shape)}, and {name}.bitmask says "
            f"{count} values"
        )
    whole = torch.zeros(rows, width, dtype=values.dtype)
    whole.view(_BITS[values.element_size()])[mask] = values.view(_BITS[values.element_size()])
    return whole.reshape(sizes)
