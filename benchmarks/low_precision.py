"""Low precision against float32 in ONNX Runtime: answers kept, size and speed."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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
    """Digits ensembles, of the samples' size and wide, and a transformer encoder.

    The samples' models have 18,000 weights: their files, and their time, are nodes.
    """
    wide = Path(__file__).with_name("wide_digits.py")
    sys.path[:0] = [str(SAMPLES), str(wide.parent)]
    train = importlib.import_module("digits_train")
    narrow = SAMPLES / "recipes" / "digits_models.py"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *_digits(train, folder / "narrow", narrow, quick=quick),
            *_digits(train, folder / "wide", wide, quick=quick),
            *_encoder(folder, quick=quick),
        ]


def _digits(train: Any, folder: Path, models: Path, *, quick: bool) -> list[Row]:
    folder.mkdir()
    shutil.copy(models, folder)
    module = importlib.import_module(models.stem)
    members = {name: getattr(module, name) for name in train.MEMBERS}
    trained, held = train.train_all(0, 2 if quick else train.EPOCHS, members)
    train.save(trained, held, folder / "weights" / "digits")
    seen, _ = train.split(0)
    np.savez(folder / "seen.npz", image=seen.image.numpy())
    images, labels = held.image.numpy(), held.label.numpy()
    text = (SAMPLES / "recipes/digits_ensemble.yaml").read_text()
    text = text.replace("tensorrt-rtx", "onnx").replace("digits_models", models.stem)
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
    time = ratio(seconds["int8"], seconds["float32"])
    bounded = folder.name == "wide" and not quick
    title = f"digits ensemble, {folder.name}, int8"
    size = _bytes(graphs["int8"]) / _bytes(graphs["float32"])
    return [
        Row(f"{title}: accuracy lost", right["float32"] - right["int8"], "", bound=LOST),
        Row(f"{title}: accuracy in float32", right["float32"], ""),
        Row(f"{title}: files / float32", size, "x", bound=SIZE if bounded else None),
        Row.of(f"{title}: time / float32, batch 64", time, SPEED if bounded else None),
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
