"""The numeric loops of merging, compiled by numba when first called and cached on disk after that.

Every loop works on one chunk of a few megabytes, so memory does not grow with a tensor's size, and
gives up the interpreter lock, so that chunks of different tensors run in parallel.
"""

from __future__ import annotations

import gc

import numpy as np

# numba makes a million small objects when it is imported and again when it loads its first kernel.
# Looking for garbage among them, over and over, takes longer than making them.
_collecting = gc.isenabled()
gc.disable()
try:
    from toolkit.merge.kernels.consensus import combine, masked_mass
    from toolkit.merge.kernels.philox import random_bits
    from toolkit.merge.kernels.selection import mask_top
    from toolkit.merge.kernels.sums import (
        BLOCK,
        delta_sum,
        first_nonfinite,
        gram,
        inner_products,
        tree_sum,
        weighted_sum,
    )

    tree_sum(np.zeros(BLOCK))
finally:
    if _collecting:
        gc.enable()

__all__ = [
    "BLOCK",
    "combine",
    "delta_sum",
    "first_nonfinite",
    "gram",
    "inner_products",
    "mask_top",
    "masked_mass",
    "random_bits",
    "weighted_sum",
]
