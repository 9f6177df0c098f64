"""Statements that several of our operators have in common.

Each expects ``z``, the members [M, ..., V] in the type that is computed in, and names of its own.
"""

from __future__ import annotations

__all__ = ["LOG_SOFTMAX", "MIX", "ODDS", "lowest"]


def lowest(like: str) -> str:
    """``last``, ``lowest`` and ``one`` in the type of ``like``.

    ``lowest`` is the smallest finite float32. A maximum is raised to it before it is subtracted,
    because with -inf everywhere -inf - -inf would be NaN.
    """
    return f"""
  last = Constant <value_ints = [-1]> ()
  lowest_f32 = Constant <value_float = -3.4028234663852886e38> ()
  lowest = CastLike (lowest_f32, {like})
  one_f32 = Constant <value_float = 1.0> ()
  one = CastLike (one_f32, {like})
"""


def _odds(rows: str) -> str:
    """``below_peak`` and ``log_mass`` of ``rows``: their difference is the log softmax.

    The sum is at least 1 by construction unless a row is -inf throughout, and then it has no mass.
    """
    return f"""
  peak_or_inf = ReduceMax <keepdims = 1> ({rows}, last)
  peak = Clip (peak_or_inf, lowest)
  below_peak = Sub ({rows}, peak)
  odds = Exp (below_peak)
  mass_or_zero = ReduceSum <keepdims = 1> (odds, last)
  mass = Clip (mass_or_zero, one)
  log_mass = Log (mass)
"""


# Each member's own normalisation is folded into one term per row: log w - log sum exp.
ODDS = _odds("z")

MIX = """
  terms = Add (below_peak, offset)
  largest_or_inf = ReduceMax <keepdims = 0> (terms, first)
  largest = Clip (largest_or_inf, lowest)
  below_largest = Sub (terms, largest)
  shares = Exp (below_largest)
  sum_of_shares = ReduceSum <keepdims = 0> (shares, first)
  log_sum = Log (sum_of_shares)
  log_mixture = Add (log_sum, largest)
  mixture = CastLike (log_mixture, members)
"""

LOG_SOFTMAX = (
    _odds("total")
    + """
  log_mixture = Sub (below_peak, log_mass)
  mixture = CastLike (log_mixture, members)
"""
)
