"""The same idea in Triton: a block of tokens, k rounds of the largest logit."""

# ruff: noqa: ANN001, ANN201, ANN202, N803, PLR0913, PLR0917 - Triton reads signatures its own way

import triton
import triton.language as tl

__all__ = ["gate"]


@triton.jit
def _kernel(
    logits, weights, ids, tokens, E: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    PLACES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < tokens) & (columns[None, :] < E)
    x = tl.load(logits + rows[:, None] * E + columns[None, :], mask=inside, other=float("-inf"))
    x = x.to(tl.float32)
    peak = tl.max(x, 1)
    places = tl.arange(0, PLACES)
    chosen = tl.zeros([ROWS, PLACES], tl.int32)
    parts = tl.zeros([ROWS, PLACES], tl.float32)
    for place in tl.static_range(K):
        best = tl.max(x, 1)
        first = tl.min(tl.where(x == best[:, None], columns[None, :], WIDTH), 1)
        here = places[None, :] == place
        chosen = tl.where(here, first[:, None], chosen)
        parts = tl.where(here, tl.exp(best - peak)[:, None], parts)
        x = tl.where(columns[None, :] == first[:, None], float("-inf"), x)
    parts = parts / tl.sum(parts, 1)[:, None]
    kept = (rows[:, None] < tokens) & (places[None, :] < K)
    to = rows[:, None] * K + places[None, :]
    tl.store(weights + to, parts, mask=kept)
    tl.store(ids + to, chosen.to(tl.int64), mask=kept)


def gate(logits, k, weights, ids):
    """Weights and ids [T, k] of logits [T, E], the softmax over the chosen."""
    tokens, experts = logits.shape
    rows = 16
    _kernel[(triton.cdiv(tokens, rows),)](
        logits, weights, ids, tokens, experts, k, triton.next_power_of_2(experts),
        triton.next_power_of_2(k), rows,
    )  # fmt: skip
    return weights, ids
