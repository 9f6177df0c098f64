"""A sparse layer as conditionals against the physical floor, dense, PyTorch and ONNX Runtime's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.expert_layers import Floor, LayerGraphs, Sizes, eager_peer, run_peer
from benchmarks.measure import interleaved, ratio, spread
from benchmarks.rows import Row

__all__ = ["run"]

TOKENS = (1, 8, 64, 512)
OVER_FLOOR, OVER_DENSE, OVER_EXPERTS = 3.0, 10.0, 3.0
MANY = 64  # tokens from which on the peers must be slower


def run(*, quick: bool) -> list[Row]:
    """64 experts, 2 per token, and 8 experts of the same size for how cost grows with E."""
    hidden, inner = (64, 128) if quick else (512, 1024)
    sizes = Sizes(64, 2, hidden, inner)
    rows: list[Row] = []
    floor = Floor.measured()
    with tempfile.TemporaryDirectory() as folder:
        graphs = LayerGraphs(sizes, Path(folder) / "many")
        for tokens in TOKENS:
            rows += _rows(graphs, tokens, floor, quick=quick)
        few = LayerGraphs(Sizes(8, 2, hidden, inner), Path(folder) / "few")
        x = _input(1, hidden)
        calls = {
            "many": graphs.call("conditionals", x),
            "few": few.call("conditionals", x),
        }
        seconds = interleaved(calls, 5 if quick else 101, warmup=5)
    grown = ratio(seconds["many"], seconds["few"])
    bound = None if quick else OVER_EXPERTS
    rows.append(Row.of("1 token: 64 experts / 8 experts, 2 chosen", grown, bound))
    rows.append(Row("measured for the floors: float32 product", floor.flops / 1e9, "GFLOP/s"))
    rows.append(Row("measured for the floors: reading memory", floor.bandwidth / 1e9, "GB/s"))
    return rows


def _rows(graphs: LayerGraphs, tokens: int, floor: Floor, *, quick: bool) -> list[Row]:
    sizes, x = graphs.sizes, _input(tokens, graphs.sizes.hidden)
    calls = {name: graphs.call(name, x) for name in ("conditionals", "dense", "native")}
    calls["eager"] = run_peer(eager_peer(sizes), x)
    repeats = 3 if quick else (31 if tokens < MANY else 11)
    seconds = interleaved(calls, repeats, warmup=2)
    ours, least = seconds["conditionals"], floor.seconds(sizes, tokens)
    over = sorted(found / least for found in ours)
    title = f"{sizes}, {tokens} tokens"
    checked = not quick
    dense = OVER_DENSE if checked and tokens in {1, 512} else None
    peers = 1.0 if checked and tokens >= MANY else None
    return [
        Row(f"{title}: conditionals", 1e3 * float(np.median(ours)), "ms", spread(ours, 1e3)),
        Row(f"{title}: conditionals / floor", over[len(over) // 2], "x", (over[0], over[-1]),
            OVER_FLOOR if checked else None),
        _faster(f"{title}: dense / conditionals", seconds["dense"], ours, dense),
        _faster(f"{title}: PyTorch eager / conditionals", seconds["eager"], ours, peers),
        _faster(f"{title}: com.microsoft.MoE / conditionals", seconds["native"], ours, peers),
    ]  # fmt: skip


def _faster(metric: str, peer: list[float], ours: list[float], floor: float | None) -> Row:
    found = ratio(peer, ours)
    return Row(metric, found.median, "x", (found.low, found.high), floor=floor)


def _input(tokens: int, hidden: int) -> np.ndarray:
    return np.random.default_rng(tokens).normal(size=(tokens, hidden)).astype(np.float32)
