"""Routers become operators that a plugin can take over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions
from graphs.contracts import DOMAIN
from graphs.dims import Dim, dims_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ready_blocks
from graphs.moe.gating import GatingCall, agreeing
from graphs.moe.routers import Router, RouterError, router_of
from graphs.moe.routing import DISPATCHERS, dispatched, operator
from graphs.passes.base import NearMiss, PassReport
from graphs.passes.remove_unused_nodes import RemoveUnusedNodes

__all__ = ["FindGating"]


@dataclass(frozen=True)
class FindGating:
    """Replaces the nodes of a router by ``TopKGating`` or ``GroupedTopKGating``.

    What stands between the logits and the choices of a layer of experts is cut out and run on
    random logits, and every way to call an operator that the constants in it allow is run on the
    same: softmax or sigmoid scores, with a correction bias, in groups, with the weights summing to
    one or not, scaled. The one that chooses the same experts with the same weights takes its place.
    Choices may come in another order: what belongs together stays together.

    A router that no such call agrees with (PhiMoE's, whose second choice is made among logits near
    its own) stays as it is, a near miss; its ids are dispatched all the same.
    """

    name: ClassVar[str] = "find_gating"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do: in one without experts nothing is to be found."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of the gating nodes."""
        blocks, _ = ready_blocks(model.graph)
        sites: list[str] = []
        misses: list[NearMiss] = []
        last: GatingCall | None = None  # the layers of one model are alike
        for group in _by_router(blocks):
            order = {node: place for place, node in enumerate(model.graph)}
            try:
                router = _router_of_any(group, order)
                last = agreeing(router, group[0], last)
            except RouterError as reason:
                misses.append(NearMiss(group[0].name, str(reason)))
                continue
            sites.append(_put(router, group[0], last, model))
        if sites:
            RemoveUnusedNodes().apply(model)
        return PassReport(self.name, tuple(sites), tuple(misses))

    def ensures(self, model: ir.Model) -> None:
        """Agreement was established by running both."""


def _by_router(blocks: list[ExpertBlock]) -> list[list[ExpertBlock]]:
    """Blocks with the same ids together, without those whose ids an operator makes already."""
    groups: dict[ir.Value, list[ExpertBlock]] = {}
    for block in blocks:
        maker = block.ids.producer()
        if maker is None or maker.domain != DOMAIN or maker.op_type not in DISPATCHERS:
            groups.setdefault(block.ids, []).append(block)
    return list(groups.values())


def _router_of_any(blocks: list[ExpertBlock], order: Mapping[ir.Node, int]) -> Router:
    """The router of blocks that share their ids: weights are applied behind one of them."""
    *others, last = blocks
    try:
        return router_of(last, order)
    except RouterError:
        if not others:
            raise
        return _router_of_any(others, order)


def _put(router: Router, block: ExpertBlock, call: GatingCall, model: ir.Model) -> str:
    """The operator in place of a router's nodes; gives its name."""
    graph, count = model.graph, block.num_experts
    name = f"{router.ids.name}/gating".lstrip("/")  # no absolute path, says the proof
    inputs = [_rows(router, name, graph)]
    if call.op_type == "GroupedTopKGating":
        inputs.append(_bias(router, call, name, graph))
    tokens = None if block.x.shape is None else dims_of(block.x.shape)[0]
    dims: list[Dim] = [tokens, block.top_k]
    chosen = [
        ir.Value(name=f"{name}/{label}", shape=ir.Shape(dims), type=ir.TensorType(kind))
        for label, kind in (("weights", ir.DataType.FLOAT), ("ids", ir.DataType.INT64))
    ]
    outputs = [*chosen, *dispatched(name, count)]
    node = operator(call.op_type, inputs, outputs, model, name, **call.attributes)
    node.metadata_props.update(router.nodes[-1].metadata_props)
    graph.append(node)
    router.ids.replace_all_uses_with(outputs[1], replace_graph_outputs=True)
    weights = outputs[0]
    if router.weights.dtype not in {None, ir.DataType.FLOAT}:
        weights = ir.Value(name=f"{name}/cast", shape=ir.Shape(dims), type=router.weights.type)
        kind = router.weights.dtype
        graph.append(
            ir.node("Cast", [outputs[0]], {"to": kind}, outputs=[weights], name=str(weights.name))
        )
    router.weights.replace_all_uses_with(weights, replace_graph_outputs=True)
    return name


def _rows(router: Router, name: str, graph: ir.Graph) -> ir.Value:
    """Logits [T, E]."""
    logits = router.logits
    if len(logits.shape or ()) == 2:
        return logits
    assert logits.dtype is not None
    added, count = Additions(graph, name), router.num_experts
    shape = added.constant("rows_shape", np.array([-1, count], np.int64))
    return added.node("rows", "Reshape", [logits, shape], logits.dtype, [None, count])


def _bias(router: Router, call: GatingCall, name: str, graph: ir.Graph) -> ir.Value:
    for value in router.given:
        if call.bias is not None and value.name == call.bias:
            return value
    return Additions(graph, name).constant("bias", np.zeros(router.num_experts, np.float32))
