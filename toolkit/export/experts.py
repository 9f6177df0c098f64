"""Sparse layers leave PyTorch as two ``ExpertLinear`` nodes with row-wise nodes between them.

transformers keeps the experts of a layer in three-dimensional parameters and dispatches through
an interface. While a model is exported, an implementation of ours stands there. What lies between
the projections (an activation, a gate, a clamp) is traced as PyTorch does it, and so is the router.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx import defs
from onnxscript.values import Op, Opset
from torch import nn

from graphs import CONTRACTS, Contract
from graphs.contracts import DOMAIN, VERSION
from toolkit.export.adapters import adapted
from toolkit.nn import combine, expert_linear

__all__ = ["TRANSLATIONS", "define_operators", "expert_operators"]

_NAME = "toolkit"
_ONNX = {"float32": "float", "float64": "double"}


@contextmanager
def expert_operators(module: nn.Module) -> Iterator[None]:
    """Inside, the sparse layers of ``module`` compute with ``toolkit.nn.expert_linear``.

    Raises:
        ExportError: If one of them can neither be exported nor replaced.
    """
    with ExitStack() as stack:
        for model in _pretrained(module):
            stack.enter_context(_experts_of(model))
            stack.enter_context(adapted(model))
        yield


def _pretrained(module: nn.Module) -> list[Any]:
    """Models of transformers in ``module``, if it was ever imported, without those inside them."""
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return []
    if isinstance(module, transformers.PreTrainedModel):
        return [module]
    return [model for child in module.children() for model in _pretrained(child)]


@contextmanager
def _experts_of(model: Any) -> Iterator[None]:
    from transformers.integrations import moe  # noqa: PLC0415  (an optional extra)

    moe.ALL_EXPERTS_FUNCTIONS.register(_NAME, _forward)
    before = model.get_experts_implementation()
    model.set_experts_implementation(_NAME)
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _forward(
    experts: Any, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """An experts implementation as transformers calls it.

    Args:
        experts: A decorated module: parameters [E, ., .] and flags that say how they lie.
        hidden: [T, H].
        ids: The experts each token chose, int64 [T, k].
        weights: Of each choice, [T, k]; the sum over choices has the wider type of the two.

    Returns:
        [T, H] in the dtype of ``hidden``.
    """
    k = ids.shape[-1]
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    rows = _project(experts, up, hidden, ids, k)
    rows = experts._apply_gate(rows) if experts.has_gate else experts.act_fn(rows)
    rows = _project(experts, "down_proj", rows, ids, 1)
    if experts.has_post_expert_norm:
        rows = experts.post_expert_norm(rows)
    return combine(rows, weights).to(hidden.dtype)


def _project(
    experts: Any, name: str, x: torch.Tensor, ids: torch.Tensor, spread: int
) -> torch.Tensor:
    weight = getattr(experts, name)
    if experts.is_transposed:
        weight = weight.transpose(1, 2)
    bias = getattr(experts, name + "_bias") if experts.has_bias else None
    return expert_linear(x, ids, weight, bias, spread=spread)


def define_operators(model: ir.Model) -> None:
    """Give the functions of our operators to a graph that calls them."""
    called = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for name in sorted(called):
        function = CONTRACTS[name].function(model.graph.opset_imports[""])
        model.functions[function.identifier()] = function


def _operator(contract: Contract) -> Callable[..., Any]:
    """An operator of ours as the exporter's translation tables call one."""
    parameter = defs.OpSchema.FormalParameter
    constraints = [
        (each.name, [f"tensor({_ONNX.get(dtype, dtype)})" for dtype in each.dtypes], "")
        for each in (*contract.inputs, *contract.outputs)
    ]
    schema = defs.OpSchema(
        contract.name,
        DOMAIN,
        VERSION,
        inputs=[parameter(each.name, each.name) for each in contract.inputs],
        outputs=[parameter(each.name, each.name) for each in contract.outputs],
        type_constraints=constraints,
        attributes=[
            defs.OpSchema.Attribute(each.name, defs.OpSchema.AttrType.INT)
            for each in contract.attributes
        ],
    )
    operator: Callable[..., Any] = Op(Opset(DOMAIN, VERSION), contract.name, schema)
    return operator


_PLAIN = _operator(CONTRACTS["ExpertLinear"])
_BIASED = _operator(CONTRACTS["ExpertLinearBias"])


def _translate(x: Any, ids: Any, weight: Any, bias: Any = None, spread: int = 1) -> Any:
    if bias is None:
        return _PLAIN(x, ids, weight, spread=spread)
    return _BIASED(x, ids, weight, bias, spread=spread)


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.toolkit.expert_linear.default: _translate
}
