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
from dataclasses import dataclass

import onnx_ir as ir
from onnx import parser

__all__ = ["CONTRACTS", "DOMAIN", "MIN_OPSET", "VERSION", "Attribute", "Contract", "Parameter"]

DOMAIN = "toolkit"
VERSION = 1
# ReduceMax and ReduceSum take their axes as an input from opset 18 on.
MIN_OPSET = 18

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_WEIGHTS = ("float32", "float64")


@dataclass(frozen=True)
class Parameter:
    """One input or output: its name, the dtypes it may have, its shape by dimension names."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name, ``int``, ``float`` or ``string``, and its default."""

    name: str
    type: str
    default: int | float | str


@dataclass(frozen=True)
class Contract:
    """An operator: what goes in, what comes out, and a body that defines what it computes.

    Attributes:
        name: The operator's name, unique among all domains.
        summary: The equation.
        inputs: In order.
        outputs: In order.
        attributes: By name; none of ours has any so far.
        body: Statements of the function in ONNX's text form.
    """

    name: str
    summary: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    body: str
    attributes: tuple[Attribute, ...] = ()

    def function(self, opset: int) -> ir.Function:
        """The operator as a model-local function that imports ``opset`` (at least 18)."""
        inputs = ", ".join(parameter.name for parameter in self.inputs)
        outputs = ", ".join(parameter.name for parameter in self.outputs)
        proto = parser.parse_function(
            f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
            f"{self.name} ({inputs}) => ({outputs})\n{{{self.body}}}"
        )
        proto.doc_string = self.summary
        return ir.serde.deserialize_function(proto)


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

# The smallest finite float32. A maximum is raised to it before it is subtracted, because with
# -inf everywhere -inf - -inf would be NaN.
_LOWEST = """
  last = Constant <value_ints = [-1]> ()
  lowest_f32 = Constant <value_float = -3.4028234663852886e38> ()
  lowest = CastLike (lowest_f32, weights)
  one_f32 = Constant <value_float = 1.0> ()
  one = CastLike (one_f32, weights)
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

# Each member's own normalisation is folded into one term per row, log w - log sum exp; the sum is
# at least 1 by construction unless the row is -inf throughout, and then the member has no mass.
_LINEAR = """
  peak_or_inf = ReduceMax <keepdims = 1> (z, last)
  peak = Clip (peak_or_inf, lowest)
  below_peak = Sub (z, peak)
  odds = Exp (below_peak)
  mass_or_zero = ReduceSum <keepdims = 1> (odds, last)
  mass = Clip (mass_or_zero, one)
  log_mass = Log (mass)
  log_w = Log (w)
  offset = Sub (log_w, log_mass)
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

_LOG_SOFTMAX = """
  peak_or_inf = ReduceMax <keepdims = 1> (total, last)
  peak = Clip (peak_or_inf, lowest)
  below_peak = Sub (total, peak)
  odds = Exp (below_peak)
  mass_or_zero = ReduceSum <keepdims = 1> (odds, last)
  mass = Clip (mass_or_zero, one)
  log_mass = Log (mass)
  log_mixture = Sub (below_peak, log_mass)
  mixture = CastLike (log_mixture, members)
"""

_STACKED = (
    Parameter("members", _FLOATS, ("M", "...", "V")),
    Parameter("weights", _WEIGHTS, ("M",)),
)

CONTRACTS: Mapping[str, Contract] = {
    contract.name: contract
    for contract in (
        Contract(
            "LinearInterpolation",
            "log sum_m weights[m] * softmax(members[m]): log probabilities over the last axis; "
            "a zero probability in one member survives; members may hold -inf",
            _STACKED,
            (Parameter("mixture", _FLOATS, ("...", "V")),),
            _COLUMN + _LOWEST + _LINEAR,
        ),
        Contract(
            "LogLinearInterpolation",
            "log_softmax(sum_m weights[m] * members[m]): log probabilities over the last axis; "
            "a zero probability in one member is a veto unless its weight is 0, and where "
            "everything is vetoed the result is -inf; members may hold -inf",
            _STACKED,
            (Parameter("mixture", _FLOATS, ("...", "V")),),
            _COLUMN + _LOWEST + _WEIGHTED_SUM + _LOG_SOFTMAX,
        ),
        Contract(
            "WeightedMean",
            "sum_m weights[m] * members[m], for weights that sum to 1",
            (
                Parameter("members", _FLOATS, ("M", "...")),
                Parameter("weights", _WEIGHTS, ("M",)),
            ),
            (Parameter("mean", _FLOATS, ("...",)),),
            _COLUMN + _WEIGHTED_SUM + "  mean = CastLike (total, members)\n",
        ),
    )
}
