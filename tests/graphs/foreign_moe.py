"""Sparse layers as people write them, and their graphs by either of PyTorch's exporters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["LAYERS", "WIDTH", "export", "export_gathered"]

WIDTH, INNER, EXPERTS, CHOSEN = 16, 24, 4, 2


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        nn.init.normal_(self.gate.weight)

    def forward(self, x):
        scores = functional.softmax(self.gate(x), -1)
        weights, ids = torch.topk(scores, CHOSEN, -1)
        return scores, weights / weights.sum(-1, keepdim=True), ids


class Expert(nn.Module):
    def __init__(self, inner: int = INNER, activation: Any = functional.silu) -> None:
        super().__init__()
        self.w1 = nn.Linear(WIDTH, inner)
        self.w3 = nn.Linear(WIDTH, inner, bias=False)
        self.w2 = nn.Linear(inner, WIDTH)
        self.activation = activation

    def forward(self, x):
        return self.w2(self.activation(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    """Tokens [batch, sequence, WIDTH] as rows, and back."""

    def __init__(self, experts: Any = None) -> None:
        super().__init__()
        self.router = Router()
        self.experts = nn.ModuleList(experts or [Expert() for _ in range(EXPERTS)])

    def forward(self, x):
        return self.rows(x.reshape(-1, WIDTH)).reshape(x.shape)

    def routing(self, rows):
        _, weights, ids = self.router(rows)
        return torch.zeros(rows.shape[0], EXPERTS, dtype=rows.dtype).scatter(1, ids, weights)


class Einsum(Layer):
    def __init__(self) -> None:
        super().__init__([nn.Identity()])
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER) / 4)
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER) / 4)
        self.bias = nn.Parameter(torch.randn(EXPERTS, INNER))

    def rows(self, rows):
        inner = functional.gelu(torch.einsum("td,edi->tei", rows, self.up) + self.bias)
        outer = torch.einsum("tei,edi->ted", inner, self.down)
        return torch.einsum("ted,te->td", outer, self.routing(rows))


class Batched(Layer):
    def __init__(self) -> None:
        super().__init__([nn.Identity()])
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * INNER) / 4)
        self.bias = nn.Parameter(torch.randn(EXPERTS, 1, 2 * INNER))
        self.down = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH) / 4)

    def rows(self, rows):
        every = rows.unsqueeze(0).expand(EXPERTS, -1, -1)
        gate, linear = (torch.bmm(every, self.up) + self.bias).chunk(2, -1)
        outer = torch.bmm(functional.silu(gate) * linear, self.down)
        return (outer * self.routing(rows).t().unsqueeze(-1)).sum(0)


class Stacked(Layer):
    def rows(self, rows):
        _, weights, ids = self.router(rows)
        table = (functional.one_hot(ids, EXPERTS) * weights.unsqueeze(-1)).sum(1)
        every = torch.stack([expert(rows) for expert in self.experts], 1)
        return (every * table.unsqueeze(-1)).sum(1)


class Loop(Layer):
    """Also with an expert that every token goes to, and from the last expert to the first."""

    def __init__(self, experts: Any = None) -> None:
        super().__init__(experts)
        self.shared = Expert()

    def rows(self, rows):
        _, weights, ids = self.router(rows)
        found = torch.zeros_like(rows)
        for place, expert in reversed(list(enumerate(self.experts))):
            found = found + (weights * (ids == place)).sum(-1, keepdim=True) * expert(rows)
        return found + self.shared(rows)


class Columns(nn.Module):
    """Tokens stay in two axes, softmax comes after the choice, and there are two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(WIDTH, EXPERTS) for _ in range(2))
        experts = [
            nn.Sequential(nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH))
            for _ in range(2 * EXPERTS)
        ]
        self.experts = nn.ModuleList(experts)

    def forward(self, x):
        for layer, gate in enumerate(self.gates):
            logits = gate(x)
            best, ids = logits.topk(CHOSEN, -1)
            table = torch.full_like(logits, float("-inf")).scatter(-1, ids, best).softmax(-1)
            own = self.experts[layer * EXPERTS :][:EXPERTS]
            x = x + sum(table[..., n : n + 1] * expert(x) for n, expert in enumerate(own))
        return x


class Dispatched(Layer):
    """Each expert on the tokens that chose it, as transformers 4 has Mixtral."""

    def rows(self, rows):
        _, weights, ids = self.router(rows)
        found = torch.zeros_like(rows)
        mask = functional.one_hot(ids, num_classes=EXPERTS).permute(2, 1, 0)
        for place, expert in enumerate(self.experts):
            choice, token = torch.where(mask[place])
            given = rows[None, token].reshape(-1, WIDTH)
            found.index_add_(0, token, expert(given) * weights[token, choice, None])
        return found


class Activations(Loop):
    def __init__(self) -> None:
        others = [Expert(activation=torch.tanh if n == 2 else torch.relu) for n in range(EXPERTS)]
        super().__init__(others)


class Widths(Loop):
    def __init__(self) -> None:
        super().__init__([Expert(INNER + 8 * (n == 3)) for n in range(EXPERTS)])


class Leaking(Layer):
    """What was not chosen counts a little."""

    def rows(self, rows):
        scores, _, _ = self.router(rows)
        table = self.routing(rows) + 0.1 * scores
        return sum(table[:, n : n + 1] * expert(rows) for n, expert in enumerate(self.experts))


class Threshold(Layer):
    """Where scores tie, more than k are kept."""

    def rows(self, rows):
        scores, _, _ = self.router(rows)
        least = scores.topk(CHOSEN, -1).values[:, -1:]
        table = torch.where(scores >= least, scores, 0.0)
        return sum(table[:, n : n + 1] * expert(rows) for n, expert in enumerate(self.experts))


class Residual(Layer):
    def rows(self, rows):
        table, found = self.routing(rows), rows
        for place, expert in enumerate(self.experts):
            found = found + table[:, place : place + 1] * expert(rows)
        return found


class Soft(Layer):
    """A dense mixture: every expert counts."""

    def rows(self, rows):
        scores, _, _ = self.router(rows)
        return sum(scores[:, n : n + 1] * expert(rows) for n, expert in enumerate(self.experts))


class Attention(nn.Module):
    """Every token attends to the best of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        best, places = scores.topk(1, -1)
        kept = torch.full_like(scores, float("-inf")).scatter(-1, places, best).softmax(-1)
        return x + self.out(kept @ self.value(x))


LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__.lower(): kind
    for kind in (
        Einsum, Batched, Stacked, Loop, Columns, Dispatched, Activations, Widths, Leaking,
        Threshold, Residual, Soft, Attention,
    )
}  # fmt: skip


def export(folder: Path, name: str, *, dynamo: bool, half: bool = False) -> Path:
    """The graph of a layer, x [batch, sequence, WIDTH] to y, its weights drawn anew."""
    torch.manual_seed(0)
    module, x = LAYERS[name]().eval(), torch.randn(2, 5, WIDTH)
    if half:
        module, x = module.half(), x.half()
    path = folder / f"{name}_{'dynamo' if dynamo else 'script'}.onnx"
    names = {"input_names": ["x"], "output_names": ["y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dims = ({0: "batch", 1: "sequence"},)
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=dims, verbose=False,
                              external_data=True, **names)  # fmt: skip
        else:
            axes = {"x": {0: "batch", 1: "sequence"}}
            torch.onnx.export(module, (x,), str(path), dynamo=False, dynamic_axes=axes,
                              opset_version=18, **names)  # fmt: skip
    return path


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, use_cache=False).logits


def export_gathered(path: Path, model: Any) -> Path:
    """A causal model of transformers with the weights of experts gathered for every slot."""
    model.set_experts_implementation("batched_mm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model), (torch.zeros(2, 7, dtype=torch.int64),), path, dynamo=True,
            dynamic_shapes=({0: "batch", 1: "sequence"},), input_names=["input_ids"],
            output_names=["logits"], verbose=False,
        )  # fmt: skip
    return path
