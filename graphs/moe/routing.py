"""Who goes where: the outputs of a gating or dispatch node for the ids of a block."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphs.contracts import DOMAIN, VERSION
from graphs.ops import CONTRACTS

__all__ = ["DISPATCHERS", "Dispatch", "dispatch_of", "dispatched", "dispatcher_of", "operator"]

DISPATCHERS = ("TopKGating", "GroupedTopKGating", "ExpertDispatch")
_OUTPUTS = ("token_of_row", "row_of_slot", "offsets", "active")
_TYPES = (ir.DataType.INT64, ir.DataType.INT64, ir.DataType.INT64, ir.DataType.BOOL)


@dataclass(frozen=True)
class Dispatch:
    """As the contract of ``ExpertDispatch`` names them."""

    token_of_row: ir.Value
    row_of_slot: ir.Value
    offsets: ir.Value
    active: ir.Value


def dispatch_of(ids: ir.Value, num_experts: int, model: ir.Model) -> Dispatch:
    """The dispatch of ``ids``: what a node of the graph gives already, or a new node gives."""
    node = dispatcher_of(ids)
    if node is not None:
        return Dispatch(*node.outputs[-4:])
    stem = str(ids.name).lstrip("/")
    outputs = dispatched(stem, num_experts)
    name = f"{stem}/dispatch"
    model.graph.append(
        operator("ExpertDispatch", [ids], outputs, model, name, num_experts=num_experts)
    )
    return Dispatch(*outputs)


def dispatched(stem: str, num_experts: int) -> list[ir.Value]:
    """Values for what every node of gating or dispatch ends in, named under ``stem``."""
    sizes = (None, None, num_experts + 1, num_experts)
    return [
        ir.Value(name=f"{stem}/{name}", shape=ir.Shape([size]), type=ir.TensorType(kind))
        for name, kind, size in zip(_OUTPUTS, _TYPES, sizes, strict=True)
    ]


def dispatcher_of(ids: ir.Value) -> ir.Node | None:
    """The node that dispatches ``ids``, if there is one."""
    for node in (ids.producer(), *(use.node for use in ids.uses())):
        if node is not None and node.domain == DOMAIN and node.op_type in DISPATCHERS:
            return node
    return None


def operator(
    op_type: str,
    inputs: list[ir.Value],
    outputs: list[ir.Value],
    model: ir.Model,
    name: str,
    **attributes: int | float,
) -> ir.Node:
    """A node of one of our operators, whose function the model defines from now on."""
    function = CONTRACTS[op_type].function(model.graph.opset_imports[""])
    model.functions.setdefault(function.identifier(), function)
    model.graph.opset_imports[DOMAIN] = VERSION
    return ir.node(op_type, inputs, attributes, domain=DOMAIN, outputs=outputs, name=name)
