"""Members whose weight is zero for the whole batch do not run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphs.branching import (
    Additions,
    has_subgraph,
    own_nodes,
    put_behind,
    sizes_of,
    upstream,
)
from graphs.dims import dims_of
from graphs.errors import GraphError
from graphs.passes.base import NearMiss, PassReport

__all__ = ["SkipGatedMembers"]

_LINEAR = "GatedLinearInterpolation"
_COMBINERS = (_LINEAR, "GatedLogLinearInterpolation", "GatedWeightedMean")
_SKIP = "/skip"


@dataclass(frozen=True)
class SkipGatedMembers:
    """Puts a member of a gated ensemble behind an ``If`` on its weights w_m in the batch.

        y_m = If(max over rows of w_m > threshold, member m, zeros of the same shape)

    What only the member needs goes into the branch; what others use too stays outside, and so do
    all initializers. With ``threshold`` 0, the default, the result is the same to the last bit: a
    weight of exactly 0 (``top_k``) silences a member whatever it says.

    Above 0 the weights of those that run are normalised anew. Linear only: the total variation
    distance of the result from the full mixture is at most the weight that was skipped, in every
    row, and that is at most ``threshold`` for each skipped member. A log-linear ensemble has no
    such bound, because a member with any weight can veto, and a mean of unbounded values has none
    either: both are refused. A member skipped so depends on the whole batch, and a proof, which
    holds the graph against the full ensemble, fails where that can be seen.

    Not put behind an ``If``, and reported: a member that has no nodes of its own, one whose output
    shape does not follow from the inputs' named dimensions, and one that holds control flow
    (TensorRT takes one level of it).
    """

    name: ClassVar[str] = "skip_gated_members"

    threshold: float = 0.0

    def requires(self, model: ir.Model) -> None:
        """There is a gated ensemble, and a threshold above 0 has a bound."""
        if not 0 <= self.threshold < 1:
            raise GraphError(f"{self.name}: the threshold is {self.threshold}, wanted 0 to below 1")
        calls = _calls(model.graph)
        if not calls:
            raise GraphError(
                f"{self.name}: the graph holds no gated ensemble",
                hint="constant weights do not change, so a member with weight 0 can be left out",
            )
        for call in calls if self.threshold else ():
            count = len(_rows(call))
            if call.op_type != _LINEAR:
                raise GraphError(
                    f"{self.name}: {call.name!r} is {call.op_type}, for which no bound holds with "
                    f"a threshold of {self.threshold:g}, wanted 0",
                    hint="a threshold above 0 is for linear ensembles of distributions",
                )
            if self.threshold * count >= 1:
                raise GraphError(
                    f"{self.name}: with a threshold of {self.threshold:g} all {count} members of "
                    f"{call.name!r} could be skipped, wanted less than 1/{count}"
                )

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the member outputs that an ``If`` gives now."""
        sites: list[str] = []
        misses: list[NearMiss] = []
        # Outer ensembles first: what lies in a branch then is no candidate, one level suffices.
        for call in reversed(_calls(model.graph)):
            if call.graph is not model.graph:
                continue
            self._skip(call, model.graph, sites, misses)
        return PassReport(self.name, tuple(sites), tuple(misses))

    def ensures(self, model: ir.Model) -> None:
        """No ``If`` of ours holds control flow."""
        ours = [n for n in model.graph if n.op_type == "If" and str(n.name).endswith(_SKIP)]
        for node in ours:
            inside = [below for a in node.attributes.values() for below in a.as_graph()]
            if any(has_subgraph(below) for below in inside):
                raise GraphError(f"{self.name}: {node.name!r} holds control flow")

    def _skip(
        self, call: ir.Node, graph: ir.Graph, sites: list[str], misses: list[NearMiss]
    ) -> None:
        weights = call.inputs[1]
        assert weights is not None
        gate, runs = upstream(weights), None
        for place, row in enumerate(_rows(call)):
            output = row.inputs[0]
            assert output is not None
            shared = _read_twice(row.outputs[0], call)
            own = [] if shared else [n for n in own_nodes(output, graph) if n not in gate]
            sizes = sizes_of(output, graph)
            control = [str(node.name) for node in own if has_subgraph(node)]
            if not own:
                misses.append(NearMiss(str(output.name), "it has no nodes of its own"))
            elif sizes is None:
                reason = "its shape does not follow from the inputs' named dimensions"
                misses.append(NearMiss(str(output.name), reason))
            elif control:
                misses.append(NearMiss(str(output.name), f"it holds control flow: {control[0]}"))
            else:
                runs = runs or _Runs(call, weights, self.threshold, graph)
                sites.append(str(output.name))
                put_behind(runs.condition(place), output, own, sizes, graph)


def _calls(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type in _COMBINERS]


def _rows(call: ir.Node) -> list[ir.Node]:
    """What unsqueezes each member, in order: fusing writes that, Concat and, for some, Log."""
    stack = call.inputs[0].producer() if call.inputs[0] is not None else None
    if stack is not None and stack.op_type == "Log" and stack.inputs[0] is not None:
        stack = stack.inputs[0].producer()
    if stack is None or stack.op_type != "Concat":
        return []
    rows = [value.producer() for value in stack.inputs if value is not None]
    return [row for row in rows if row is not None and row.op_type == "Unsqueeze"]


def _read_twice(value: ir.Value, call: ir.Node) -> bool:
    """Whether something besides ``call`` reads a member on its way there.

    Two equal members become one row after ``deduplicate_subgraphs``, and two ensembles of the same
    members one stack.
    """
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return True
        if uses[0].node is call:
            return False
        value = uses[0].node.outputs[0]


class _Runs:
    """Which members of a call run; with a threshold, weights of those alone."""

    def __init__(self, call: ir.Node, weights: ir.Value, threshold: float, graph: ir.Graph) -> None:
        assert weights.dtype is not None
        assert weights.shape is not None
        self._added = Additions(graph, f"{call.name}{_SKIP}")
        rows, real, count = len(weights.shape), weights.dtype, len(_rows(call))
        add = self._added
        axes = add.constant("rows", np.arange(1, rows, dtype=np.int64))
        largest = add.node("largest", "ReduceMax", [weights, axes], real, [count], keepdims=0)
        # log 0 is -inf, and only that is below the lowest finite number; with NaN a member runs.
        edge = math.log(threshold) if threshold else float(np.finfo(np.float32).min)
        limit = add.constant("threshold", np.array(edge, real.numpy()))
        comparison = "LessOrEqual" if threshold else "Less"
        idle = add.node("idle", comparison, [largest, limit], ir.DataType.BOOL, [count])
        self._active = add.node("active", "Not", [idle], ir.DataType.BOOL, [count])
        if threshold:
            self._normalise(call, weights, real)

    def condition(self, place: int) -> ir.Value:
        """Whether a member runs, a scalar."""
        index = self._added.constant(f"member_{place}", np.array(place, np.int64))
        label = f"runs_{place}"
        return self._added.node(
            label, "Gather", [self._active, index], ir.DataType.BOOL, [], axis=0
        )

    def _normalise(self, call: ir.Node, weights: ir.Value, real: ir.DataType) -> None:
        assert weights.shape is not None
        dims, add = dims_of(weights.shape), self._added
        column = [dims[0], *[1] * (len(dims) - 1)]
        shape = add.constant("column", np.array([-1, *column[1:]], np.int64))
        kept = add.node("kept", "Reshape", [self._active, shape], ir.DataType.BOOL, column)
        nothing = add.constant("nothing", np.array(-np.inf, real.numpy()))
        left = add.node("left", "Where", [kept, weights, nothing], real, dims)
        first = add.constant("first", np.array([0], np.int64))
        total = add.node(
            "total", "ReduceLogSumExp", [left, first], real, [1, *dims[1:]], keepdims=1
        )
        call.replace_input_with(1, add.node("weights", "Sub", [left, total], real, dims))
