"""Layers of experts in graphs that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from graphs.moe.alike import ExpertSet, experts_alike
from graphs.moe.gathered import replace_gathered
from graphs.moe.linears import NotExpertsError
from graphs.moe.meetings import exits_of, expert_outputs
from graphs.moe.rebuilding import rebuild, refuse_mixed_rows
from graphs.moe.sizes import settle_slices
from graphs.moe.trials import SparseSum, sparse_sum
from graphs.passes.base import NearMiss, PassReport

__all__ = ["FindMoeBlocks"]


@dataclass(frozen=True)
class FindMoeBlocks:
    """Replaces layers of experts by ``ExpertLinear`` and what stands between.

        sum over e of R[t, e] * y_e(x[t])  =  sum over j of R[t, ids[t, j]] * y_ids[t, j](x[t])

    where ids are k experts that a ``TopK`` chose and R is zero outside them. Cases:

    1. the weight matrix of every slot is gathered, as transformers' ``batched_mm`` does;
    2. all experts run on all tokens in batched products (``MatMul`` or ``Einsum``);
    3. experts run one by one, on all tokens or on those that chose them (``NonZero``), and are
       summed, stacked or scattered. Their matrices are named as one tensor and not copied.

    Experts have to be the same but for their weights; of 2 and 3 the rest of the layer is run with
    stand-ins for experts, on random logits, on ties and with all tokens on one expert, which says
    what R is.
    """

    name: ClassVar[str] = "find_moe_blocks"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do: in one without experts nothing is to be found."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the linear layers of experts that end a layer, or stand for gathered ones."""
        graph = model.graph
        if not any(node.op_type in {"ArgMax", "TopK"} for node in graph):
            return PassReport(self.name)
        graph.sort()
        if any(value.shape is None for node in graph for value in node.outputs):
            common.ShapeInferencePass()(model)
        settle_slices(graph)
        gathered, misses = replace_gathered(model)
        graph.sort()
        sums, others = _sums(graph)
        # From the back: what a layer gives may be what a later one reads.
        sites = [rebuild(found, experts, model) for experts, found in reversed(sums)]
        return PassReport(self.name, (*gathered, *reversed(sites)), (*misses, *others))

    def ensures(self, model: ir.Model) -> None:
        """Agreement was established by running what was replaced."""


def _sums(graph: ir.Graph) -> tuple[list[tuple[ExpertSet, SparseSum]], list[NearMiss]]:
    """Sparse sums over experts in a sorted graph, and what almost is one."""
    order = {node: place for place, node in enumerate(graph)}
    found: list[tuple[ExpertSet, SparseSum]] = []
    misses: list[NearMiss] = []
    for outputs in expert_outputs(graph):
        sums = _sum(outputs, graph, order)
        if isinstance(sums, NearMiss):
            misses.append(sums)
        else:
            found.append(sums)
    return found, misses


def _sum(
    outputs: tuple[ir.Value, ...], graph: ir.Graph, order: Mapping[ir.Node, int]
) -> tuple[ExpertSet, SparseSum] | NearMiss:
    try:
        experts = experts_alike(outputs)
        refuse_mixed_rows(experts)
        return experts, sparse_sum(experts, exits_of(outputs, graph), order)
    except NotExpertsError as reason:
        node = outputs[-1].producer()
        return NearMiss(str(outputs[-1].name if node is None else node.name), str(reason))
