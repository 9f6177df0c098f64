"""A sparsely gated Mixture-of-Experts layer for one's own models (Shazeer et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from toolkit.nn.experts import combine, expert_linear
from toolkit.nn.gating import keep_top_k, load, noisy, squared_variation, within_capacity

__all__ = ["SparseMoE", "balance_loss"]


class SparseMoE(nn.Module):
    """``y = sum_i G(x)_i E_i(x)`` over the k experts that the gate G keeps, of E feed-forward ones.

    ``G(x) = Softmax(KeepTopK(H(x), k))`` (arXiv:1701.06538, section 2.1). In training H has noise
    that the gate learns the size of, and every forward pass leaves a ``balance`` to be added to
    the loss; ``balance_loss`` sums it over a model. In evaluation H is the gate's logits, no token
    is dropped, and ties go to the lowest expert id. Everything random is drawn from PyTorch's
    default generator, so ``torch.manual_seed`` fixes it.

    An expert is ``W_2 activation(W_1 x + b_1) + b_2``, or if gated, with the upper half of W_1 x
    as u and the lower half as v, ``W_2 (activation(u) * v) + b_2``. Experts that no token chose
    are not computed, here and in what ``toolkit export`` makes of the layer.

    Attributes:
        balance: What the last pass in training adds to the loss, a scalar; 0 before any.
    """

    def __init__(  # noqa: PLR0913  (options of a layer, by name)
        self,
        width: int,
        hidden: int,
        *,
        experts: int,
        k: int = 2,
        activation: Callable[[torch.Tensor], torch.Tensor] = functional.relu,
        gated: bool = False,
        bias: bool = True,
        noise: bool = True,
        importance_weight: float = 0.1,
        load_weight: float = 0.1,
        capacity_factor: float | None = None,
    ) -> None:
        """Make a layer of random experts and a gate that prefers none (appendix A).

        Args:
            width: Size of x and y.
            hidden: Size between an expert's two projections.
            experts: E.
            k: How many of them a token is given.
            activation: Elementwise.
            gated: Whether the activation is of one half and multiplies the other.
            bias: Whether the projections have one.
            noise: Whether training adds noise to the gate.
            importance_weight: w of ``L_importance = w CV(Importance(X))^2`` (section 4).
            load_weight: w of ``L_load = w CV(Load(X))^2`` (appendix A); without noise there is no
                smooth load, and this loss is left out.
            capacity_factor: In training, an expert hears at most ``ceil(factor T k / E)`` slots,
                and what it would say to the rest is 0. None leaves nobody out.

        Raises:
            ValueError: If k is not between 1 and ``experts``.
        """
        super().__init__()
        if not 1 <= k <= experts:
            raise ValueError(f"k is {k}, wanted 1 to {experts}, the number of experts")
        self.k, self.noise, self.gated, self.activation = k, noise, gated, activation
        self.importance_weight, self.load_weight = importance_weight, load_weight
        self.capacity_factor = capacity_factor
        # All 0: at first noise alone chooses, and the load is even.
        self.gate = nn.Parameter(torch.zeros(experts, width))
        self.gate_noise = nn.Parameter(torch.zeros(experts, width)) if noise else None
        up = 2 * hidden if gated else hidden
        self.up = _uniform(width, experts, up, width)
        self.down = _uniform(hidden, experts, width, hidden)
        self.up_bias = _uniform(width, experts, up) if bias else None
        self.down_bias = _uniform(hidden, experts, width) if bias else None
        self.balance = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] to the same; all axes but the last are tokens."""
        tokens = x.reshape(-1, x.shape[-1])
        weights, ids = self.choose(tokens)
        rows = expert_linear(tokens, ids, self.up, self.up_bias, spread=self.k)
        if self.gated:
            first, second = rows.chunk(2, dim=-1)
            rows = self.activation(first) * second
        else:
            rows = self.activation(rows)
        rows = expert_linear(rows, ids, self.down, self.down_bias)
        return combine(rows, weights).to(x.dtype).view_as(x)

    def choose(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights float32 [T, k] and expert ids int64 [T, k] of tokens [T, width]."""
        clean = functional.linear(tokens, self.gate).float()
        if not self.training:
            return keep_top_k(clean, self.k)
        if self.gate_noise is None:
            weights, ids = keep_top_k(clean, self.k)
            self.balance = self._importance_loss(weights, ids)
        else:
            deviation = functional.softplus(functional.linear(tokens, self.gate_noise).float())
            logits = noisy(clean, deviation)
            weights, ids = keep_top_k(logits, self.k)
            smooth = load(clean, deviation, logits, self.k)
            self.balance = self._importance_loss(weights, ids) + (
                self.load_weight * squared_variation(smooth)
            )
        if self.capacity_factor is not None:
            weights = weights * within_capacity(ids, len(self.gate), self.capacity_factor)
        return weights, ids

    def _importance_loss(self, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        importance = weights.new_zeros(len(self.gate))
        importance = importance.index_add(0, ids.reshape(-1), weights.reshape(-1))
        return self.importance_weight * squared_variation(importance)

    def __getstate__(self) -> dict[str, Any]:
        """Without ``balance``, which hangs on the pass it came from: copies start with none."""
        return {**self.__dict__, "balance": torch.zeros(())}

    def extra_repr(self) -> str:
        """Sizes, as ``print(model)`` shows them."""
        experts, width, hidden = self.down.shape
        return f"{width}, {hidden}, experts={experts}, k={self.k}, gated={self.gated}"


def balance_loss(model: nn.Module) -> torch.Tensor:
    """What the sparse layers of ``model`` add to the loss after a pass in training; a scalar."""
    layers = [module.balance for module in model.modules() if isinstance(module, SparseMoE)]
    return torch.stack(layers).sum() if layers else torch.zeros(())


def _uniform(inputs: int, *shape: int) -> nn.Parameter:
    """As ``nn.Linear`` starts: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
