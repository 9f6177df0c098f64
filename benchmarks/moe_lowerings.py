"""Every lowering of a sparse layer over tokens, experts and choices, and what auto takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.expert_layers import Floor, LayerGraphs, Sizes, eager_peer, run_peer
from benchmarks.measure import Ratio, interleaved, ratio, spread
from benchmarks.rows import Row
from toolkit.pipeline.experts import LOWERINGS, fastest_lowering
from toolkit.progress import silent

__all__ = ["run"]

FULL = [Sizes(8, 2, 512, 1024), Sizes(64, 2, 512, 1024), Sizes(64, 8, 256, 512)]
QUICK = [Sizes(4, 2, 64, 128)]
TOKENS = (1, 8, 64, 512)
WORST_AUTO = 1.3


def run(*, quick: bool) -> list[Row]:
    """Milliseconds of every lowering in ONNX Runtime, and how far auto's is from the best."""
    rows: list[Row] = []
    floor = Floor.measured()
    with tempfile.TemporaryDirectory() as folder:
        for number, sizes in enumerate(QUICK if quick else FULL):
            graphs = LayerGraphs(sizes, Path(folder) / str(number))
            for tokens in TOKENS[:2] if quick else TOKENS:
                rows += _rows(graphs, tokens, floor, repeats=3 if quick else 15)
    rows.append(Row("measured for the floors: float32 product", floor.flops / 1e9, "GFLOP/s"))
    rows.append(Row("measured for the floors: reading memory", floor.bandwidth / 1e9, "GB/s"))
    return rows


def _rows(graphs: LayerGraphs, tokens: int, floor: Floor, repeats: int) -> list[Row]:
    sizes = graphs.sizes
    x = np.random.default_rng(tokens).normal(size=(tokens, sizes.hidden)).astype(np.float32)
    calls = {name: graphs.call(name, x) for name in LOWERINGS}
    calls["PyTorch eager"] = run_peer(eager_peer(sizes), x)
    seconds = interleaved(calls, repeats, warmup=2)
    medians = {name: float(np.median(found)) for name, found in seconds.items()}
    record = fastest_lowering([(graphs.exported, graphs.layer)], [tokens], silent)
    best = min(LOWERINGS, key=medians.__getitem__)
    chosen = seconds[record.lowering]
    title = f"{sizes}, {tokens} tokens"
    beside = {name: 1e3 * median for name, median in medians.items() if name != "conditionals"}
    beside["floor"] = 1e3 * floor.seconds(sizes, tokens)
    found = seconds["conditionals"]
    return [
        Row(f"{title}: conditionals", 1e3 * medians["conditionals"], "ms", spread(found, 1e3),
            beside=beside),
        Row.of(f"{title}: auto ({record.lowering}) / best ({best})",
               ratio(chosen, seconds[best]) if record.lowering != best else Ratio(1, 1, 1),
               WORST_AUTO),
    ]  # fmt: skip
