"""The contracts of the operators of ours, and their bodies in standard ONNX.

Each operator is a model-local function: ONNX Runtime and TensorRT run the body, and a TensorRT
plugin of the same name may take its place. Three rules keep one file good for every runtime:

* bodies are flat (TensorRT's parser does not resolve attributes through nested functions);
* names are unique whatever the domain (it ignores domain and overload);
* the number of inputs is fixed, so members arrive stacked along axis 0.

Numerics: the type of ``weights`` is the type computed in, float32 for members in half precision
(mixing in float16 loses the tails of distributions), and the result is cast back.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphs.bodies import LOG_SOFTMAX, MIX, ODDS, lowest
from graphs.contracts import (
    DOMAIN,
    FLOATS,
    MIN_OPSET,
    VERSION,
    WEIGHTS,
    Attribute,
    Contract,
    Parameter,
)
from graphs.gated_ops import GATED
from graphs.moe_ops import MOE
from graphs.native_ops import TRT_MOE

__all__ = ["CONTRACTS", "DOMAIN", "MIN_OPSET", "VERSION", "Attribute", "Contract", "Parameter"]

# w [M, 1, ..., 1]: the weights as a column that broadcasts against members of any rank.
_COLUMN = """
  rest = Shape <start = 1> (members)
  rank_of_rest = Shape (rest)
  ones = ConstantOfShape <value = int64[1] {1}> (rank_of_rest)
  every = Constant <value_ints = [-1]> ()
  column = Concat <axis = 0> (every, ones)
  w = Reshape (weights, column)
  z = CastLike (members, weights)
  first = Constant <value_ints = [0]> ()
"""

# A weight of 0 silences a member even where it says -inf: 0 * -inf would be NaN.
_WEIGHTED_SUM = """
  zero_f32 = Constant <value_float = 0.0> ()
  zero = CastLike (zero_f32, weights)
  heard = Greater (w, zero)
  kept = Where (heard, z, zero)
  weighted = Mul (kept, w)
  total = ReduceSum <keepdims = 0> (weighted, first)
"""

_LINEAR = ODDS + "  log_w = Log (w)\n  offset = Sub (log_w, log_mass)\n" + MIX

_STACKED = (
    Parameter("members", FLOATS, ("M", "...", "V")),
    Parameter("weights", WEIGHTS, ("M",)),
)

CONTRACTS: Mapping[str, Contract] = {
    contract.name: contract
    for contract in (
        Contract(
            "LinearInterpolation",
            "log sum_m weights[m] * softmax(members[m]): log probabilities over the last axis; "
            "a zero probability in one member survives; members may hold -inf",
            _STACKED,
            (Parameter("mixture", FLOATS, ("...", "V")),),
            _COLUMN + lowest("weights") + _LINEAR,
        ),
        Contract(
            "LogLinearInterpolation",
            "log_softmax(sum_m weights[m] * members[m]): log probabilities over the last axis; "
            "a zero probability in one member is a veto unless its weight is 0, and where "
            "everything is vetoed the result is -inf; members may hold -inf",
            _STACKED,
            (Parameter("mixture", FLOATS, ("...", "V")),),
            _COLUMN + lowest("weights") + _WEIGHTED_SUM + LOG_SOFTMAX,
        ),
        Contract(
            "WeightedMean",
            "sum_m weights[m] * members[m], for weights that sum to 1",
            (
                Parameter("members", FLOATS, ("M", "...")),
                Parameter("weights", WEIGHTS, ("M",)),
            ),
            (Parameter("mean", FLOATS, ("...",)),),
            _COLUMN + _WEIGHTED_SUM + "  mean = CastLike (total, members)\n",
        ),
        *GATED,
        *MOE,
        TRT_MOE,
    )
}
