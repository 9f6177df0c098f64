"""Low precision against float32 in ONNX Runtime: answers kept, size and speed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.measure import interleaved, ratio
from benchmarks.members import Member
from benchmarks.rows import Row
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.feeds import make_feeds
from toolkit.pipeline import export_recipe
from toolkit.quantise import QuantiseOptions, quantise
from toolkit.recipe import load_recipe
from toolkit.sources import FactorySource

__all__ = ["run"]

SAMPLES = Path(__file__).parent.parent / "samples"
LOST, SIZE, SPEED = 0.005, 0.3, 1.0  # accuracy, bytes and time of int8 against float32
PRECISIONS = ("int8", "int8_dynamic", "int8_weights", "int4_weights")


def run(*, quick: bool) -> list[Row]:
    """The digits ensemble, whose size is its nodes, and a transformer encoder, whose is weights."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_digits(Path(folder), quick=quick), *_encoder(Path(folder), quick=quick)]


def _digits(folder: Path, *, quick: bool) -> list[Row]:
    sys.path.insert(0, str(SAMPLES))
    import digits_train

    trained, held = digits_train.train_all(0, 2 if quick else digits_train.EPOCHS)
    digits_train.save(trained, held, folder / "weights" / "digits")
    seen, _ = digits_train.split(0)
    np.savez(folder / "seen.npz", image=seen.image.numpy())
    (folder / "digits_models.py").write_text((SAMPLES / "recipes/digits_models.py").read_text())
    text = (SAMPLES / "recipes/digits_ensemble.yaml").read_text().replace("tensorrt-rtx", "onnx")
    images, labels = held.image.numpy(), held.label.numpy()
    graphs, right = {}, {}
    for name in ("float32", "int8"):
        recipe = folder / f"{name}.yaml"
        calibration = ", calibration: seen.npz" if name == "int8" else ""
        export = f"export: {{precision: {name}{calibration}}}"
        recipe.write_text(f"{text}\n{export}\nparity: {{inputs: weights/digits/heldout.npz}}\n")
        out = export_recipe(load_recipe(recipe, allow_code=True), folder, folder / f"{name}_out")
        graphs[name] = out.folder / "model.onnx"
        said = _call(graphs[name], {"image": images})()[0].argmax(axis=1)
        right[name] = float((said == labels).mean())
    calls = {name: _call(path, {"image": images[:64]}) for name, path in graphs.items()}
    seconds = interleaved(calls, 31 if quick else 301, warmup=5)
    title = "digits ensemble, int8"
    return [
        Row(f"{title}: accuracy lost", right["float32"] - right["int8"], "", bound=LOST),
        Row(f"{title}: accuracy in float32", right["float32"], ""),
        Row(f"{title}: files / float32", _bytes(graphs["int8"]) / _bytes(graphs["float32"]), "x"),
        Row.of(f"{title}: time / float32, batch 64", ratio(seconds["int8"], seconds["float32"])),
    ]


def _encoder(folder: Path, *, quick: bool) -> list[Row]:
    vocabulary, width, depth = (500, 64, 1) if quick else (2000, 512, 6)
    kwargs = {"vocabulary": vocabulary, "width": width, "depth": depth, "classes": 10}
    member = Member("benchmarks.models:encoder", kwargs)
    spec = TensorSpec.parse("input_ids", "int64[batch, 64]", low=0, high=vocabulary)
    weights, plain = folder / "encoder.safetensors", folder / "encoder.onnx"
    member.write(weights, 0)
    source = FactorySource("encoder", member.factory, weights, (spec,), kwargs=member.kwargs)
    export_source(source, {"batch": DimRange(1, 4, 16)}, ExportOptions(), plain)
    feeds = [make_feeds([spec], {"batch": 4}, np.random.default_rng(seed)) for seed in range(8)]
    paths = {"float32": plain}
    for precision in PRECISIONS:
        paths[precision] = folder / f"{precision}.onnx"
        quantise(plain, paths[precision], QuantiseOptions(precision), feeds)
    calls = {name: _call(path, feeds[0]) for name, path in paths.items()}
    answers = {name: call()[0] for name, call in calls.items()}
    seconds = interleaved(calls, 9 if quick else 41, warmup=2)
    rows = []
    for name in PRECISIONS:
        title = f"encoder of width {width}, {name}"
        off = answers[name] - answers["float32"]
        error = float(np.sqrt(np.square(off).mean() / np.square(answers["float32"]).mean()))
        bounded = name == "int8" and not quick
        time = ratio(seconds[name], seconds["float32"])
        size = _bytes(paths[name]) / _bytes(plain)
        rows += [
            Row(f"{title}: files / float32", size, "x", bound=SIZE if bounded else None),
            Row.of(f"{title}: time / float32, 4 x 64", time, SPEED if bounded else None),
            Row(f"{title}: rms error of logits, relative", error, ""),
        ]
    return rows


def _bytes(graph: Path) -> int:
    files = (graph, graph.with_name(graph.name + ".data"))
    return sum(file.stat().st_size for file in files if file.exists())


def _call(path: Path, feeds: dict[str, np.ndarray]) -> Callable[[], list[np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, feeds)
