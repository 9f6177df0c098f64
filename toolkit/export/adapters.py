"""Sparse layers that transformers does not run through its experts interface.

While a model is exported, each stands in for the layer that it is made of, with the same weights.
A layer that has no stand-in here is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from toolkit.errors import ExportError
from toolkit.nn import combine, expert_linear

__all__ = ["adapted"]


@contextmanager
def adapted(model: nn.Module) -> Iterator[None]:
    """Inside, layers of ``model`` that ``_STAND_INS`` knows are replaced.

    Raises:
        ExportError: If a sparse layer can neither be exported nor replaced.
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
    ]
    for _, _, child in places:
        _refuse(child)
    found = [place for place in places if _class_of(place[2]) in _STAND_INS]
    try:
        for parent, name, child in found:
            setattr(parent, name, _STAND_INS[_class_of(child)](child).eval())
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


def _class_of(module: nn.Module) -> str:
    """The class's name, if it is one of transformers'."""
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith("transformers.models.") else ""


def _refuse(module: nn.Module) -> None:
    name = _class_of(module)
    sparse = name.endswith("Experts") and "Shared" not in name and not hasattr(module, "has_gate")
    if sparse and name not in _STAND_INS and name not in _PARTS:
        reason = _REASONS.get(name, "transformers does not run it through its experts interface")
        raise ExportError(
            f"{name} cannot be exported: {reason}",
            hint="the architectures that can be are listed in docs/moe.md",
        )


class _JetMoe(nn.Module):
    """JetMoE's layers of experts: a router, two grouped projections and a bias."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.router, self.bias = layer.router, layer.bias
        self.input_linear, self.output_linear = layer.input_linear, layer.output_linear

    def choose(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Experts and weights, both [T, k], of x [T, H]."""
        logits, ids = self.router.layer(x).float().topk(self.router.top_k, dim=1)
        return ids, logits.softmax(1).type_as(x)

    def first(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """[T, H] to [T * k, U]."""
        return expert_linear(x, ids, self.input_linear.weight, spread=ids.shape[1])

    def second(self, rows: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[T * k, U] to [T, H]."""
        rows = expert_linear(rows, ids, self.output_linear.weight)
        bias: torch.Tensor = self.bias
        return combine(rows, weights) + bias


class _JetMoeMoE(_JetMoe):
    """A mixture of feed-forward networks."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.activation = layer.activation

    def forward(self, layer_input: torch.Tensor) -> torch.Tensor:
        """[batch, sequence, H] to the same."""
        x = layer_input.reshape(-1, layer_input.shape[-1])
        ids, weights = self.choose(x)
        gate, up = self.first(x, ids).chunk(2, dim=-1)
        found = self.second(self.activation(gate) * up, ids, weights)
        return found.view(layer_input.shape)


class _JetMoeMoA(_JetMoe):
    """A mixture of attentions: experts are pairs of query and output projections."""

    def map(self, layer_input: torch.Tensor) -> tuple[torch.Tensor, None, tuple[torch.Tensor, ...]]:
        """The queries [batch, sequence, k, U], no logits, and what ``reduce`` needs."""
        x = layer_input.reshape(-1, layer_input.shape[-1])
        ids, weights = self.choose(x)
        queries = self.first(x, ids)
        shape = (*layer_input.shape[:2], ids.shape[1], queries.shape[-1])
        return queries.view(shape), None, (ids, weights)

    def reduce(
        self, layer_input: torch.Tensor, topology: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """What was attended to, [batch, sequence, k, U], to [batch, sequence, H]."""
        rows = layer_input.reshape(-1, layer_input.shape[-1])
        return self.second(rows, *topology).view(*layer_input.shape[:2], -1)


class _SwitchRouter(nn.Module):
    """Switch Transformers' router, which replaces a module of its own whenever it is called."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.classifier, self.dtype = layer.classifier.to(layer.dtype), layer.dtype
        self.capacity, self.num_experts = layer.expert_capacity, layer.num_experts

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[batch, sequence, H] to the choices that fit, [., ., E], weights [., ., 1] and logits.

        An expert takes the first ``capacity`` tokens of a sequence that choose it.
        """
        logits = self.classifier(hidden.to(self.dtype))
        weights, ids = logits.softmax(-1).to(hidden.dtype).max(-1, keepdim=True)
        chosen = (ids == torch.arange(self.num_experts, device=ids.device)).long()
        return chosen * (chosen.cumsum(-2) <= self.capacity), weights, logits


class _SwitchExperts(nn.Module):
    """Switch Transformers' modules as one tensor per projection."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        experts = list(layer.values())
        self.act = experts[0].act
        self.wi = _stack([expert.wi for expert in experts])
        self.wo = _stack([expert.wo for expert in experts])

    def forward(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Hidden [T, H]; chosen [T, 1, E], one-hot or 0 where capacity was full; weights [T, 1]."""
        ids = chosen.argmax(-1)
        rows = self.act(expert_linear(hidden, ids, self.wi, spread=1))
        rows = expert_linear(rows.to(self.wo.dtype), ids, self.wo)
        return combine(rows, weights * chosen.sum(-1)).to(hidden.dtype)


class _DbrxExperts(nn.Module):
    """DBRX's three tables of all experts' rows, seen as one matrix per expert."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        shape = (layer.num_experts, layer.ffn_hidden_size, layer.hidden_size)
        self.act: Callable[[torch.Tensor], torch.Tensor] = layer.mlp.activation_fn
        self.w1, self.v1, self.w2 = (
            nn.Parameter(table.detach().view(shape), requires_grad=False)
            for table in (layer.mlp.w1, layer.mlp.v1, layer.mlp.w2)
        )

    def forward(
        self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Hidden [batch, sequence, H]; ids and weights [T, k]."""
        x, k = hidden.reshape(-1, hidden.shape[-1]), ids.shape[1]
        gate = expert_linear(x, ids, self.w1, spread=k)
        rows = self.act(gate) * expert_linear(x, ids, self.v1, spread=k)
        return combine(expert_linear(rows, ids, self.w2.transpose(1, 2)), weights).view_as(hidden)


class _Llama4TextMoe(nn.Module):
    """Llama 4 scales what enters an expert, and computes every expert for every token."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.experts, self.router, self.shared_expert = (
            layer.experts, layer.router, layer.shared_expert,
        )  # fmt: skip

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch, sequence, H] to [T, H] and the router's logits."""
        x = hidden.reshape(-1, hidden.shape[-1])
        logits = nn.functional.linear(x, self.router.weight)
        best, ids = logits.topk(self.router.top_k, dim=1)
        scores = best.float().sigmoid().to(x.dtype)
        rows = (x[:, None] * scores[..., None]).reshape(-1, x.shape[-1])
        up = expert_linear(rows, ids, self.experts.gate_up_proj.transpose(1, 2))
        gate, value = up.chunk(2, dim=-1)
        rows = value * self.experts.act_fn(gate)
        rows = expert_linear(rows, ids, self.experts.down_proj.transpose(1, 2))
        return self.shared_expert(x) + rows.view(*ids.shape, -1).sum(1), logits


def _stack(layers: list[Any]) -> nn.Parameter:
    """One tensor of many; the layers become views of it, so weights are held once."""
    together = torch.stack([layer.weight.detach() for layer in layers])
    for layer, part in zip(layers, together, strict=True):
        layer.weight.data = part
    return nn.Parameter(together, requires_grad=False)


_STAND_INS: Mapping[str, Callable[[Any], nn.Module]] = {
    "JetMoeMoE": _JetMoeMoE,
    "JetMoeMoA": _JetMoeMoA,
    "SwitchTransformersTop1Router": _SwitchRouter,
    "SwitchTransformersExperts": _SwitchExperts,
    "DbrxExperts": _DbrxExperts,
    "Llama4TextMoe": _Llama4TextMoe,
}
# Weights of layers above.
_PARTS = ("JetMoeParallelExperts", "Llama4TextExperts")
_REASONS: Mapping[str, str] = {
    "NllbMoeExperts": "transformers sends its tokens to experts 0 and 1 alone, whatever the router "
    "chose, so there is nothing right to compare with",
    "LongcatFlashExperts": "some of its experts are identities, which have no weights",
}
