"""Sparse layers leave PyTorch as two ``ExpertLinear`` nodes with row-wise nodes between them.

transformers keeps the experts of a layer in three-dimensional parameters and dispatches through
an interface. While a model is exported, an implementation of ours stands there. What lies between
the projections (an activation, a gate, a clamp) is traced as PyTorch does it, and so is the router.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from onnx import defs
from onnxscript.values import Op, Opset
from torch import nn

from graphs import CONTRACTS
from toolkit.nn import expert_linear

__all__ = ["TRANSLATIONS", "expert_operators"]

_NAME = "toolkit"
_FLOATS = ("float16", "bfloat16", "float", "double")


@contextmanager
def expert_operators(module: nn.Module) -> Iterator[None]:
    """Inside, the sparse layers of ``module`` compute with ``toolkit.nn.expert_linear``."""
    with ExitStack() as stack:
        for model in _pretrained(module):
            stack.enter_context(_experts_of(model))
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


def combine(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """``sum_j weights[t, j] * rows[t * k + j]``: rows [T * k, H], weights [T, k]."""
    weighted = rows * weights.reshape(-1, 1)
    return weighted.view(*weights.shape, rows.shape[-1]).sum(1)


def _operator(name: str, inputs: Sequence[str], types: Mapping[str, str]) -> Callable[..., Any]:
    """The operator as the exporter's translation tables call one."""
    domain, version = "toolkit", 1
    schema = defs.OpSchema(
        name,
        domain,
        version,
        inputs=[defs.OpSchema.FormalParameter(name, types.get(name, "T")) for name in inputs],
        outputs=[defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", [f"tensor({dtype})" for dtype in _FLOATS], "")],
        attributes=[defs.OpSchema.Attribute("spread", defs.OpSchema.AttrType.INT)],
    )
    return Op(Opset(domain, version), name, schema)


_PLAIN = _operator("ExpertLinear", ("x", "ids", "weight"), {"ids": "tensor(int64)"})
_BIASED = _operator("ExpertLinearBias", ("x", "ids", "weight", "bias"), {"ids": "tensor(int64)"})


def _translate(x: Any, ids: Any, weight: Any, bias: Any = None, spread: int = 1) -> Any:
    if bias is None:
        return _PLAIN(x, ids, weight, spread=spread)
    return _BIASED(x, ids, weight, bias, spread=spread)


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.toolkit.expert_linear.default: _translate
}
