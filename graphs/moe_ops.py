"""The operators of sparse Mixture-of-Experts layers: gating, dispatch, and experts' linear layers.

A layer of E experts sends each of T tokens to k of them. A *slot* is one of the T * k pairs of
token and choice, counted along the tokens; a *row* is a slot's place once slots are sorted by
expert, stably: among one expert's rows, tokens stand in their order.

``ExpertLinear`` is what an export writes: the definition, right on any runtime and slow, because it
gathers a weight matrix for every slot. The passes ``experts_to_*`` replace it.

Ties go to the lowest expert id: ONNX says so of TopK, and a plugin has to do the same. NaN is
larger than any number, as PyTorch and ONNX Runtime 1.32 sort it, so it is chosen and shows in the
weights.

``TopKChoice`` and ``GroupedTopKChoice`` are the gating operators without their dispatch, for an
engine that carries its kernels (``engine.plugin: aot``): it has one kernel for each operator, and
no one kernel can sort what others are still choosing.
"""

from __future__ import annotations

from graphs.contracts import FLOATS, Attribute, Contract, Parameter

__all__ = ["MOE"]

_IDS = Parameter("ids", ("int64",), ("T", "k"))
_WEIGHTS = Parameter("weights", ("float32",), ("T", "k"))
_LOGITS = Parameter("logits", FLOATS, ("T", "E"))
_NUM_EXPERTS = Attribute("num_experts", "int")
_K = Attribute("k", "int")
_NORMALIZE = Attribute("normalize", "int", 1)
_SCALE = Attribute("scale", "float", 1.0)
# What TensorRT's parser reads to find a plugin of the operator's name.
_PLUGIN = (
    Attribute("plugin_version", "string", "1"),
    Attribute("plugin_namespace", "string", "toolkit"),
)

_DISPATCHED = (
    Parameter("token_of_row", ("int64",), ("T*k",)),
    Parameter("row_of_slot", ("int64",), ("T*k",)),
    Parameter("offsets", ("int64",), ("E+1",)),
    Parameter("active", ("bool",), ("E",)),
)

# Sorting by counting: a slot's row is where its expert's rows start plus how many slots of that
# expert came before. Counts in float32 are exact below 2^24 slots. No sort, OneHot, NonZero or
# scatter with a reduction: runtimes lack one or the other.
_DISPATCH = """
  every = Constant <value_ints = [-1]> ()
  as_column = Constant <value_ints = [-1, 1]> ()
  rows = Constant <value_ints = [0]> ()
  axis = Constant <value_int = 0> ()
  none = Constant <value_int = 0> ()
  single = Constant <value_int = 1> ()
  expert_count = Constant <value_int: int = @num_experts> ()
  expert = Reshape (ids, every)
  expert_column = Reshape (ids, as_column)
  experts = Range (none, expert_count, single)
  hit = Equal (expert_column, experts)
  hot = Cast <to = 1> (hit)
  counts = ReduceSum <keepdims = 0> (hot, rows)
  ends_f32 = CumSum (counts, axis)
  ends = Cast <to = 7> (ends_f32)
  offsets = Concat <axis = 0> (rows, ends)
  active = Cast <to = 9> (counts)
  running = CumSum (hot, axis)
  nth_f32 = GatherElements <axis = 1> (running, expert_column)
  nth_column = Cast <to = 7> (nth_f32)
  nth = Reshape (nth_column, every)
  start = Gather <axis = 0> (offsets, expert)
  row_plus_one = Add (start, nth)
  row_of_slot = Sub (row_plus_one, single)
  slot_count = Size (ids)
  slots = Range (none, slot_count, single)
  slot_of_row = ScatterElements <axis = 0> (slots, row_of_slot, slots)
  ids_shape = Shape (ids)
  choices = Gather <axis = 0> (ids_shape, single)
  token_of_row = Div (slot_of_row, choices)
"""

_TOP_K = """
  last = Constant <value_ints = [-1]> ()
  k_int = Constant <value_int: int = @k> ()
  k_shape = Reshape (k_int, last)
  z = Cast <to = 1> (logits)
"""

# ``total`` is what the weights are divided by, of ``chosen`` [T, k]; then they are scaled.
_SCALED = """
  shares = Div (chosen, total)
  scale_f32 = Constant <value_float: float = @scale> ()
  weights = Mul (shares, scale_f32)
"""
_NORMALIZED = """
  normalize_int = Constant <value_int: int = @normalize> ()
  normalized = Cast <to = 9> (normalize_int)
"""

# Softmax keeps the order, so TopK takes the logits: softmax before and after it then differ only
# in what the weights are divided by.
_SOFTMAX = (
    _TOP_K
    + _NORMALIZED
    + """
  best, ids = TopK <largest = 1> (z, k_shape)
  peak = ReduceMax <keepdims = 1> (best, last)
  best_below = Sub (best, peak)
  chosen = Exp (best_below)
  chosen_mass = ReduceSum <keepdims = 1> (chosen, last)
  below = Sub (z, peak)
  odds = Exp (below)
  mass = ReduceSum <keepdims = 1> (odds, last)
  total = Where (normalized, chosen_mass, mass)
"""
    + _SCALED
)

# Experts outside the best groups are set below every finite score. The 1e-20 is DeepSeek's: where
# all sigmoids underflow, the weights are 0 and not NaN.
_GROUPED = (
    _TOP_K
    + _NORMALIZED
    + """
  one_f32 = Constant <value_float = 1.0> ()
  sigmoid_int = Constant <value_int: int = @sigmoid> ()
  by_sigmoid = Cast <to = 9> (sigmoid_int)
  softmaxes = Softmax <axis = -1> (z)
  sigmoids = Sigmoid (z)
  scores = Where (by_sigmoid, sigmoids, softmaxes)
  bias_f32 = Cast <to = 1> (bias)
  biased = Add (scores, bias_f32)
  same = Constant <value_ints = [0]> ()
  groups_int = Constant <value_int: int = @groups> ()
  groups_shape = Reshape (groups_int, last)
  grouped_shape = Concat <axis = 0> (same, groups_shape, last)
  grouped = Reshape (biased, grouped_shape)
  group_top_int = Constant <value_int: int = @group_top> ()
  group_top_shape = Reshape (group_top_int, last)
  group_best, group_places = TopK <largest = 1> (grouped, group_top_shape)
  group_scores = ReduceSum <keepdims = 0> (group_best, last)
  top_groups_int = Constant <value_int: int = @top_groups> ()
  top_groups_shape = Reshape (top_groups_int, last)
  best_groups, kept_groups = TopK <largest = 1> (group_scores, top_groups_shape)
  lowest = Constant <value_float = -3.4028234663852886e38> ()
  every_group = Shape (group_scores)
  shut = ConstantOfShape <value = float[1] {0.0}> (every_group)
  kept_shape = Shape (kept_groups)
  ones = ConstantOfShape <value = float[1] {1.0}> (kept_shape)
  open_f32 = ScatterElements <axis = 1> (shut, kept_groups, ones)
  open = Cast <to = 9> (open_f32)
  open_column = Unsqueeze (open, last)
  within = Where (open_column, grouped, lowest)
  logits_shape = Shape (logits)
  candidates = Reshape (within, logits_shape)
  best, ids = TopK <largest = 1> (candidates, k_shape)
  chosen = GatherElements <axis = 1> (scores, ids)
  chosen_sum = ReduceSum <keepdims = 1> (chosen, last)
  tiny = Constant <value_float = 1e-20> ()
  chosen_mass = Add (chosen_sum, tiny)
  total = Where (normalized, chosen_mass, one_f32)
"""
    + _SCALED
)

# The gathered weights are [T*k, U, D]: what makes this slow, and what the passes do away with.
_LINEAR = """
  every = Constant <value_ints = [-1]> ()
  last = Constant <value_ints = [-1]> ()
  none = Constant <value_int = 0> ()
  single = Constant <value_int = 1> ()
  spread_int = Constant <value_int: int = @spread> ()
  expert = Reshape (ids, every)
  slot_count = Size (ids)
  slots = Range (none, slot_count, single)
  source = Div (slots, spread_int)
  taken = Gather <axis = 0> (x, source)
  column = Unsqueeze (taken, last)
  matrices = Gather <axis = 0> (weight, expert)
  product = MatMul (matrices, column)
"""

_PLAIN = _LINEAR + "  y = Squeeze (product, last)\n"
_BIASED = (
    _LINEAR
    + """
  linear = Squeeze (product, last)
  offset = Gather <axis = 0> (bias, expert)
  y = Add (linear, offset)
"""
)

_LINEAR_INPUTS = (
    Parameter("x", FLOATS, ("N", "D")),
    _IDS,
    Parameter("weight", FLOATS, ("E", "U", "D")),
)
_LINEAR_OUTPUTS = (Parameter("y", FLOATS, ("T*k", "U")),)
_SPREAD = (Attribute("spread", "int", 1),)

_CHOSEN = (
    "ids: the k largest logits of a token, ties to the lowest id; weights: scale * softmax "
    "over those (normalize 1) or over all E logits (0)"
)
_CHOSEN_IN_GROUPS = (
    "scores: sigmoid(logits) or (sigmoid 0) softmax; biased: scores + bias; the top_groups "
    "groups whose group_top largest biased scores sum highest are kept; ids: the k largest "
    "biased scores in them, ties to the lowest id; weights: scale * scores[ids], divided by "
    "their sum + 1e-20 (normalize 1)"
)
_PLAIN_ATTRIBUTES = (_NUM_EXPERTS, _K, _NORMALIZE, _SCALE)
_GROUPED_ATTRIBUTES = (
    *_PLAIN_ATTRIBUTES,
    Attribute("sigmoid", "int", 1),
    Attribute("groups", "int", 1),
    Attribute("top_groups", "int", 1),
    Attribute("group_top", "int", 1),
)
_GROUPED_INPUTS = (_LOGITS, Parameter("bias", FLOATS, ("E",)))
_AND_DISPATCH = "; and the dispatch of ids"

MOE = (
    Contract(
        "TopKGating",
        _CHOSEN + _AND_DISPATCH,
        (_LOGITS,),
        (_WEIGHTS, _IDS, *_DISPATCHED),
        _SOFTMAX + _DISPATCH,
        (*_PLAIN_ATTRIBUTES, *_PLUGIN),
    ),
    Contract(
        "GroupedTopKGating",
        _CHOSEN_IN_GROUPS + _AND_DISPATCH,
        _GROUPED_INPUTS,
        (_WEIGHTS, _IDS, *_DISPATCHED),
        _GROUPED + _DISPATCH,
        (*_GROUPED_ATTRIBUTES, *_PLUGIN),
    ),
    Contract(
        "TopKChoice",
        _CHOSEN,
        (_LOGITS,),
        (_WEIGHTS, _IDS),
        _SOFTMAX,
        (*_PLAIN_ATTRIBUTES, *_PLUGIN),
    ),
    Contract(
        "GroupedTopKChoice",
        _CHOSEN_IN_GROUPS,
        _GROUPED_INPUTS,
        (_WEIGHTS, _IDS),
        _GROUPED,
        (*_GROUPED_ATTRIBUTES, *_PLUGIN),
    ),
    Contract(
        "ExpertDispatch",
        "row_of_slot: the place of each slot when slots are sorted by expert, stably; "
        "token_of_row: the token of each row; offsets: where each expert's rows start and end; "
        "active: whether an expert has rows",
        (_IDS,),
        _DISPATCHED,
        _DISPATCH,
        (_NUM_EXPERTS, *_PLUGIN),
    ),
    Contract(
        "ExpertLinear",
        "y[s] = weight[ids[s]] @ x[s // spread] for every slot s",
        _LINEAR_INPUTS,
        _LINEAR_OUTPUTS,
        _PLAIN,
        _SPREAD,
    ),
    Contract(
        "ExpertLinearBias",
        "y[s] = weight[ids[s]] @ x[s // spread] + bias[ids[s]] for every slot s",
        (*_LINEAR_INPUTS, Parameter("bias", FLOATS, ("E", "U"))),
        _LINEAR_OUTPUTS,
        _BIASED,
        _SPREAD,
    ),
)
