"""The operators of gated ensembles: weights that a gate computes, as logarithms.

Weights come as logarithms because a softmax in float32 underflows where the definition does not:
a member with the weight 1e-60 still decides what all others exclude. -inf is a weight of exactly
0 and silences a member whatever it says, NaN and infinities included; a gate that says NaN gives
NaN. Everything is computed in the type of the weights, float32 for members in half precision.
"""

from __future__ import annotations

from graphs.bodies import LOG_SOFTMAX, MIX, ODDS, lowest
from graphs.contracts import FLOATS, WEIGHTS, Contract, Parameter

__all__ = ["GATED"]

# A member's rank in its row: how many scores are larger, or equal and further left. Written out,
# because runtimes break the ties of TopK as they like. ``nothing`` is -inf, which ONNX's text
# form cannot say.
_KEPT = """
  last = Constant <value_ints = [-1]> ()
  before_last = Constant <value_ints = [-2]> ()
  others = Unsqueeze (scores, before_last)
  own = Unsqueeze (scores, last)
  larger = Greater (others, own)
  equal = Equal (others, own)
  first_of_equals = And (equal, earlier)
  ahead = Or (larger, first_of_equals)
  ahead_counted = CastLike (ahead, scores)
  rank = ReduceSum <keepdims = 0> (ahead_counted, last)
  limit = CastLike (top_k, scores)
  kept = Less (rank, limit)
  zero_f32 = Constant <value_float = 0.0> ()
  zero = CastLike (zero_f32, scores)
  nothing = Log (zero)
"""

_SOFTMAX = """
  heard = Where (kept, scores, nothing)
  peak = ReduceMax <keepdims = 1> (heard, last)
  below_peak = Sub (heard, peak)
  odds = Exp (below_peak)
  mass = ReduceSum <keepdims = 1> (odds, last)
  log_mass = Log (mass)
  log_weights = Sub (below_peak, log_mass)
"""

# softplus(s) = max(s, 0) + log1p(x) with x = exp(-|s|), and log1p(x) = x log(u) / (u - 1) with
# u = 1 + x (Kahan), because ONNX has no log1p. Below -12, where softplus would soon underflow,
# log softplus(s) = s - e^s / 2 + 5 e^2s / 24, which is exact to 1e-16 there.
_SOFTPLUS = """
  edge_f32 = Constant <value_float = -12.0> ()
  edge = CastLike (edge_f32, scores)
  half_f32 = Constant <value_float = 0.5> ()
  half = CastLike (half_f32, scores)
  fifth_f32 = Constant <value_float = 0.20833333> ()
  fifth = CastLike (fifth_f32, scores)
  one_f32 = Constant <value_float = 1.0> ()
  one = CastLike (one_f32, scores)
  low = Min (scores, edge)
  tail = Exp (low)
  tail_fifth = Mul (tail, fifth)
  tail_rest = Sub (half, tail_fifth)
  correction = Mul (tail, tail_rest)
  log_low = Sub (scores, correction)
  high = Max (scores, edge)
  size = Abs (high)
  negative_size = Neg (size)
  x = Exp (negative_size)
  u = Add (x, one)
  log_u = Log (u)
  x_log_u = Mul (x, log_u)
  rounded_x = Sub (u, one)
  quotient = Div (x_log_u, rounded_x)
  vanished = Equal (u, one)
  log1p_x = Where (vanished, x, quotient)
  positive = Max (high, zero)
  weight_high = Add (positive, log1p_x)
  log_high = Log (weight_high)
  is_low = Less (scores, edge)
  log_any = Where (is_low, log_low, log_high)
  log_weights = Where (kept, log_any, nothing)
"""

# Only -inf is below the lowest finite number, and NaN is not.
_HEARD = """
  first = Constant <value_ints = [0]> ()
  zero_f32 = Constant <value_float = 0.0> ()
  zero = CastLike (zero_f32, log_weights)
  silent = Less (log_weights, lowest)
  said = CastLike (members, log_weights)
  z = Where (silent, zero, said)
"""

# A weight that underflows is raised to the smallest normal float32, so that it still vetoes.
_WEIGHTED_SUM = """
  weight_or_zero = Exp (log_weights)
  tiny_f32 = Constant <value_float = 1.1754943508222875e-38> ()
  tiny = CastLike (tiny_f32, log_weights)
  underflows = Less (weight_or_zero, tiny)
  weight = Where (underflows, tiny, weight_or_zero)
  weighted = Mul (z, weight)
  total = ReduceSum <keepdims = 0> (weighted, first)
"""

_SCORES = (
    Parameter("scores", WEIGHTS, ("...", "M")),
    Parameter("top_k", ("int64",), ()),
    Parameter("earlier", ("bool",), ("M", "M")),
)
_LOG_WEIGHTS = (Parameter("log_weights", WEIGHTS, ("...", "M")),)
_STACKED = (
    Parameter("members", FLOATS, ("M", "...", "V")),
    Parameter("log_weights", WEIGHTS, ("M", "...", "1")),
)
_BEFORE = lowest("log_weights") + _HEARD
_RANKED = (
    "of the top_k largest scores of a row, -inf for the others; of equal scores the first counts "
    "as larger (earlier[m, n] says that n < m)"
)

GATED = (
    Contract(
        "GateSoftmax",
        f"log softmax {_RANKED}",
        _SCORES,
        _LOG_WEIGHTS,
        _KEPT + _SOFTMAX,
    ),
    Contract(
        "GateSoftplus",
        f"log softplus {_RANKED}",
        _SCORES,
        _LOG_WEIGHTS,
        _KEPT + _SOFTPLUS,
    ),
    Contract(
        "GatedLinearInterpolation",
        "log sum_m exp(log_weights[m]) * softmax(members[m]): log probabilities over the last "
        "axis; weights differ from row to row and sum to 1",
        _STACKED,
        (Parameter("mixture", FLOATS, ("...", "V")),),
        _BEFORE + ODDS + "  offset = Sub (log_weights, log_mass)\n" + MIX,
    ),
    Contract(
        "GatedLogLinearInterpolation",
        "log_softmax(sum_m exp(log_weights[m]) * members[m]): log probabilities over the last "
        "axis; weights differ from row to row; a zero probability is a veto unless the member's "
        "weight is 0, and where everything is vetoed the result is -inf",
        _STACKED,
        (Parameter("mixture", FLOATS, ("...", "V")),),
        _BEFORE + _WEIGHTED_SUM + LOG_SOFTMAX,
    ),
    Contract(
        "GatedWeightedMean",
        "sum_m exp(log_weights[m]) * members[m], for weights that sum to 1 in every row",
        (
            Parameter("members", FLOATS, ("M", "...")),
            Parameter("log_weights", WEIGHTS, ("M", "...")),
        ),
        (Parameter("mean", FLOATS, ("...",)),),
        _BEFORE + _WEIGHTED_SUM + "  mean = CastLike (total, members)\n",
    ),
)
