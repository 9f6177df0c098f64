"""A linear layer with one weight per expert, as one operator that PyTorch and ONNX both know.

A sparse layer of any kind is two of these with row-wise arithmetic between them, so this operator
is all that an exporter has to keep together and all that a graph pass has to find again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["combine", "expert_linear"]

_Grads = tuple[torch.Tensor, torch.Tensor]


def expert_linear(
    x: torch.Tensor,
    ids: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    spread: int = 1,
) -> torch.Tensor:
    """``y[s] = weight[e] @ x[s // spread] + bias[e]`` with ``e = ids.flatten()[s]``.

    A slot is one choice of one token, in the order of ``ids`` read row by row. An up projection
    has one row of ``x`` per token (``spread`` is k), a down projection one per slot (1). Rows are
    computed expert by expert, so an expert that nobody chose costs nothing.

    Args:
        x: [N, D].
        ids: The experts each token chose, int64 [T, k] with T * k = N * spread.
        weight: [E, U, D].
        bias: [E, U].
        spread: How many slots in a row share a row of ``x``.

    Returns:
        [T * k, U], in the dtype of ``x``.
    """
    if x.shape[0] * spread != ids.numel():
        raise ValueError(
            f"{x.shape[0]} rows, each for {spread} slots, do not fill ids {tuple(ids.shape)}"
        )
    found: torch.Tensor = torch.ops.toolkit.expert_linear(x, ids, weight, bias, spread)
    return found


def combine(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """``y[t] = sum_j weights[t, j] * rows[t * k + j]``: what a token's experts say, weighed.

    Args:
        rows: Of each slot, [T * k, U].
        weights: Of each choice, [T, k].

    Returns:
        [T, U] in the wider of both types, which the sum is taken in.
    """
    weighted = rows * weights.reshape(-1, 1)
    return weighted.view(*weights.shape, rows.shape[-1]).sum(1)


def _forward(
    x: torch.Tensor,
    ids: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    spread: int,
) -> torch.Tensor:
    rows = x.new_empty(ids.numel(), weight.shape[1])
    for expert, slots in _chosen(ids, weight.shape[0]):
        rows[slots] = torch.nn.functional.linear(
            x[slots // spread], weight[expert], None if bias is None else bias[expert]
        )
    return rows


def _backward(
    grad: torch.Tensor, x: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, spread: int
) -> _Grads:
    """Gradients of ``x`` and ``weight``."""
    slots_of_x = x.new_empty(ids.numel(), x.shape[1])
    of_weight = torch.zeros_like(weight)
    for expert, slots in _chosen(ids, weight.shape[0]):
        slots_of_x[slots] = grad[slots] @ weight[expert]
        of_weight[expert] = grad[slots].T @ x[slots // spread]
    # A sum over an axis; adding at repeated indices would depend on the order of threads.
    return slots_of_x.view(x.shape[0], spread, x.shape[1]).sum(1), of_weight


def _chosen(ids: torch.Tensor, experts: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Each expert that was chosen, and the slots that chose it in order."""
    flat = ids.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=experts).tolist()
    for expert, slots in enumerate(torch.split(order, counts)):
        if slots.numel():
            yield expert, slots


def _forward_shape(
    x: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, *_: object
) -> torch.Tensor:
    return x.new_empty(ids.shape[0] * ids.shape[1], weight.shape[1])


def _backward_shape(
    _grad: torch.Tensor, x: torch.Tensor, _ids: torch.Tensor, weight: torch.Tensor, *_: object
) -> _Grads:
    return torch.empty_like(x), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001  (PyTorch's signature)
    x, ids, weight, bias, spread = inputs
    ctx.save_for_backward(x, ids, weight)
    ctx.spread, ctx.biased = spread, bias is not None


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, ids, weight = ctx.saved_tensors
    operator: Callable[..., _Grads] = torch.ops.toolkit.expert_linear_backward
    of_x, of_weight = operator(grad, x, ids, weight, ctx.spread)
    of_bias = None
    if ctx.biased:
        of_bias = grad.new_zeros(weight.shape[:2]).index_add(0, ids.reshape(-1), grad)
    return of_x, None, of_weight, of_bias, None


# Defined by schema, so that annotations may stay strings (PEP 563).
torch.library.custom_op(
    "toolkit::expert_linear",
    _forward,
    mutates_args=(),
    schema="(Tensor x, Tensor ids, Tensor weight, Tensor? bias, int spread) -> Tensor",
).register_fake(_forward_shape)
torch.library.custom_op(
    "toolkit::expert_linear_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor ids, Tensor weight, int spread) -> (Tensor, Tensor)",
).register_fake(_backward_shape)
torch.library.register_autograd("toolkit::expert_linear", _differentiate, setup_context=_remember)
