"""TensorRT's own operator for a layer of experts, with a body for every other runtime.

``TRT_MoE`` keeps TensorRT's name: from TensorRT 11.0 on the parser makes its MoE layer of any node
that is called so, function or not (seen on TensorRT-RTX 1.7.1's parser), and every other runtime
runs the body.
"""

from __future__ import annotations

from graphs.contracts import FLOATS, Attribute, Contract, Parameter

__all__ = ["TRT_MOE"]

# All experts on all tokens: right anywhere, and meant to be replaced. What an expert that was not
# chosen computes is left out by Where and not by a weight of 0, which would keep its infinities.
_NATIVE = """
  first = Constant <value_ints = [0]> ()
  last = Constant <value_ints = [-1]> ()
  none = Constant <value_int = 0> ()
  single = Constant <value_int = 1> ()
  row = Constant <value_ints = [1]> ()
  two_last = Constant <value_ints = [1, 2]> ()
  x_shape = Shape (x)
  width = Shape <start = -1> (x)
  rows_shape = Concat <axis = 0> (row, last, width)
  rows = Reshape (x, rows_shape)
  gates = MatMul (rows, gate)
  ups = MatMul (rows, up)
  switches = Sigmoid (gates)
  activated = Mul (gates, switches)
  inner = Mul (activated, ups)
  given = MatMul (inner, down)
  given_f32 = Cast <to = 1> (given)
  choices = Shape <start = -1> (ids)
  slots_shape = Concat <axis = 0> (last, choices)
  ids_rows = Reshape (ids, slots_shape)
  ids_long = Cast <to = 7> (ids_rows)
  scores_rows = Reshape (scores, slots_shape)
  scores_f32 = Cast <to = 1> (scores_rows)
  expert_count_vector = Shape <start = 0, end = 1> (gate)
  expert_count = Squeeze (expert_count_vector, first)
  experts = Range (none, expert_count, single)
  expert_cube = Unsqueeze (experts, two_last)
  hit = Equal (ids_long, expert_cube)
  zero = Constant <value_float = 0.0> ()
  hit_scores = Where (hit, scores_f32, zero)
  weights = ReduceSum <keepdims = 1> (hit_scores, last)
  hot = Cast <to = 1> (hit)
  hits = ReduceMax <keepdims = 1> (hot, last)
  chosen = Cast <to = 9> (hits)
  weighed = Mul (given_f32, weights)
  kept = Where (chosen, weighed, zero)
  sum_f32 = ReduceSum <keepdims = 0> (kept, first)
  sum = CastLike (sum_f32, x)
  y = Reshape (sum, x_shape)
"""
_STATES = Parameter("x", FLOATS, ("B", "S", "H"))

TRT_MOE = Contract(
    "TRT_MoE",
    "y = sum over j of scores[.., j] * (silu(x @ gate[e]) * (x @ up[e])) @ down[e] for "
    "e = ids[.., j] (activation_type 1)",
    (
        _STATES,
        Parameter("ids", ("int32",), ("B", "S", "k")),
        Parameter("scores", FLOATS, ("B", "S", "k")),
        Parameter("gate", FLOATS, ("E", "H", "I")),
        Parameter("up", FLOATS, ("E", "H", "I")),
        Parameter("down", FLOATS, ("E", "I", "H")),
    ),
    (Parameter("y", FLOATS, ("B", "S", "H")),),
    _NATIVE,
    (Attribute("activation_type", "int", 1),),
)
