"""Weights with n of m in place: which go, by three published criteria, and masks that are kept."""

from toolkit.sparse.criteria import Moments, magnitude, second_order, wanda
from toolkit.sparse.masks import Masks
from toolkit.sparse.patterns import Pattern, PatternCheck, check_pattern, reduction_axis

__all__ = [
    "Masks",
    "Moments",
    "Pattern",
    "PatternCheck",
    "check_pattern",
    "magnitude",
    "reduction_axis",
    "second_order",
    "wanda",
]
