"""Weights with n of m in place: which go, by three published criteria, masks, and storage."""

from toolkit.sparse.bitmask import PARTS, compress, compressed_bytes, restore
from toolkit.sparse.criteria import Moments, magnitude, second_order, wanda
from toolkit.sparse.masks import Masks
from toolkit.sparse.patterns import Pattern, PatternCheck, check_pattern, reduction_axis

__all__ = [
    "PARTS",
    "Masks",
    "Moments",
    "Pattern",
    "PatternCheck",
    "check_pattern",
    "compress",
    "compressed_bytes",
    "magnitude",
    "reduction_axis",
    "restore",
    "second_order",
    "wanda",
]
