"""What skipping silent neurons saves: down projections in ONNX Runtime, whole and skipping.

Layers of the same size are run in turn, as a decoder's are, so that no cache holds the weights; the
rows that say so run one again and again, which is the harder case: less is saved by not reading.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import numpy_helper, parser, save, shape_inference

from benchmarks.measure import interleaved, ratio
from benchmarks.rows import Row
from graphs import SkipSilentNeurons, rewrite
from toolkit.pipeline.neuron_trials import break_evens

__all__ = ["run"]

FASTER = 1.5  # at so many silent neurons and one token
BOUNDED = 0.9
LAYERS = 8  # of 16 MiB each: more than caches hold
SLOWER = 1.02  # with more tokens than the pass looks at


@dataclass(frozen=True)
class _Layer:
    plain: Path
    skipping: Path
    neurons: int


def run(*, quick: bool) -> list[Row]:
    """Hidden size 1,024 and 4,096 neurons, from 80 % silent at one token to none at 256."""
    width, neurons = (256, 1024) if quick else (1024, 4096)
    with tempfile.TemporaryDirectory() as folder:
        layer = _layer(Path(folder), width, neurons)
        rows = _skipped(layer, repeats=31 if quick else 201)
        rows += _paid(layer, repeats=15 if quick else 61)
        rows += [
            Row(f"{count} tokens: break-even, share of silent neurons", share, "")
            for count, share in break_evens(layer.plain, neurons, LAYERS).items()
        ]
    return [
        Row(f"{width} x {neurons}, {row.metric}", row.value, row.unit, row.spread,
            None if quick else row.bound, None if quick else row.floor)
        for row in rows
    ]  # fmt: skip


def _skipped(layer: _Layer, repeats: int) -> list[Row]:
    rows = []
    for count, layers in ((1, LAYERS), (1, 1), (8, LAYERS)):
        for silent in (0.8, 0.9, 0.95, 0.99, 1.0):
            found = _race(layer, count, silent, repeats, layers)
            decodes = count == 1 and layers > 1 and silent >= BOUNDED
            bound = FASTER if decodes else None
            gain = ratio(found["whole"], found["skipping"])
            where = "" if layers > 1 else ", weights in the cache"
            title = f"{count} tokens, {silent:.0%} silent{where}: whole / skipping"
            spread = (gain.low, gain.high)
            rows.append(Row(title, gain.median, "x", spread, floor=bound))
    return rows


def _paid(layer: _Layer, repeats: int) -> list[Row]:
    """What it costs where nothing is skipped: ``auto`` does not choose it for one such token."""
    rows = []
    for count, bound in ((1, None), (64, SLOWER), (256, SLOWER)):
        found = _race(layer, count, 0.0, repeats)
        cost = ratio(found["skipping"], found["whole"])
        rows.append(Row.of(f"{count} tokens, none silent: skipping / whole", cost, bound))
        whole = statistics.median(found["whole"]) * 1e3
        rows.append(Row(f"{count} tokens, none silent: whole", whole, "ms"))
    return rows


def _race(
    layer: _Layer, count: int, silent: float, repeats: int, layers: int = LAYERS
) -> dict[str, list[float]]:
    neurons = layer.neurons
    random = np.random.default_rng(count)
    rows = np.abs(random.normal(size=(count, neurons))).astype(np.float32)
    rows[:, random.permutation(neurons)[: round(silent * neurons)]] = 0
    calls = {
        "whole": _call(layer.plain, rows, layers),
        "skipping": _call(layer.skipping, rows, layers),
    }
    return interleaved(calls, repeats, warmup=layers)


def _layer(folder: Path, width: int, neurons: int) -> _Layer:
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"net (float[tokens, {neurons}] x) => (float[tokens, {width}] y) "
        "{ a = Relu (x) y = MatMul (a, down) }"
    )
    weights = np.random.default_rng(0).normal(size=(neurons, width)).astype(np.float32)
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(weights, "down"))
    plain, skipping = folder / "plain.onnx", folder / "skipping.onnx"
    save(shape_inference.infer_shapes(model), plain)
    rewrite(plain, [SkipSilentNeurons()], skipping, required=[SkipSilentNeurons.name])
    return _Layer(plain, skipping, neurons)


def _call(path: Path, rows: np.ndarray, layers: int) -> Callable[[], object]:
    """The next of so many copies with every call."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    runs = cycle(
        [
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for _ in range(layers)
        ]
    )
    return lambda: next(runs).run(None, {"x": rows})
