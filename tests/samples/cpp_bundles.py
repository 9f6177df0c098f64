"""Small bundles for the C++ sample, each with feeds that reach its corners."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import graphs
from tests.moe_models import SHAPES
from tests.workshop import write_huggingface, write_recipe
from toolkit.artifacts import OnnxModel, TensorSpec
from toolkit.bundle import Manifest
from toolkit.bundle.manifest import TensorRecord
from toolkit.export.exporter import read_onnx
from toolkit.feeds.caches import caches_of
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.progress import silent
from toolkit.recipe import load_recipe

__all__ = ["DTYPES", "Feeds", "decoder", "decoder_feeds", "digits", "identities", "moe"]

Feeds = dict[str, np.ndarray]
DTYPES = (
    "bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
DECODERS = """
model:
  ensemble:
    combine: linear
    weights: [0.25, 0.75]
    members: [{checkpoint: g, cache: true}, {checkpoint: l, cache: true}]
shapes: {batch: [1, 2, 3], sequence: [1, 2, 4], past_sequence: [0, 4, 8]}
"""


def digits(recipes: Path, folder: Path) -> Path:
    """The sample's linear ensemble, hardly trained."""
    script = recipes.parent / "digits_train.py"
    out = folder / "weights" / "digits"
    command = [sys.executable, str(script), "--epochs", "1", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.copy(recipes / "digits_models.py", folder)
    text = (recipes / "digits_ensemble.yaml").read_text()
    assert "target: tensorrt-rtx" in text
    text = text.replace("target: tensorrt-rtx", "target: onnx") + "parity: {cases: 1}\n"
    recipe = load_recipe(write_recipe(folder, text), allow_code=True)
    export_recipe(recipe, folder, folder / "bundle")
    return folder / "bundle"


def decoder(folder: Path) -> Path:
    """A fused ensemble of two decoders of different width, with their caches."""
    write_huggingface(folder / "g", "gpt2", 0, n_layer=1)
    write_huggingface(folder / "l", "llama", 1, num_hidden_layers=1, hidden_size=24)
    plan = make_plan(load_recipe(write_recipe(folder, DECODERS)), folder)
    bundle = folder / "bundle"
    bundle.mkdir()
    (folder / "members").mkdir()
    path = bundle / "model.onnx"
    fuse_leaves(plan, export_leaves(plan, folder / "members", silent), path, ())
    outputs = read_onnx(path, plan.inputs, plan.shapes).outputs
    spans = {name: (span.min, span.opt, span.max) for name, span in plan.shapes.items()}
    return _bundle(bundle, plan.inputs, outputs, spans)


def moe(model: OnnxModel, folder: Path) -> Path:
    """A mixture of experts in which only the chosen experts run, each behind an ``If``."""
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    (report,) = graphs.rewrite(model.path, [graphs.ExpertsToConditionals()], path)
    assert report.sites
    spans = {name: (span.min, span.opt, span.max) for name, span in SHAPES.items()}
    return _bundle(folder, model.inputs, model.outputs, spans)


def identities(folder: Path) -> Path:
    """Gives back one array of every dtype, whatever its sizes."""
    folder.mkdir(parents=True)
    types = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in DTYPES}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in DTYPES]
    nodes.append(helper.make_node("Identity", ["scalar"], ["scalar_out"]))
    sides = [
        [
            *(
                helper.make_tensor_value_info(name + end, kind, ["rows", "columns"])
                for name, kind in types.items()
            ),
            helper.make_tensor_value_info("scalar" + end, TensorProto.FLOAT, []),
        ]
        for end in ("", "_out")
    ]
    graph = helper.make_graph(nodes, "identities", *sides)
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset]), folder / "model.onnx")
    inputs, outputs = (
        (
            *(TensorSpec(name + end, name, ("rows", "columns")) for name in DTYPES),
            TensorSpec("scalar" + end, "float32", ()),
        )
        for end in ("", "_out")
    )
    return _bundle(folder, inputs, outputs, {"rows": (0, 2, 300), "columns": (0, 3, 9)})


def decoder_feeds(manifest: Manifest, rows: int, new: int, past: int) -> Feeds:
    """A step that gives ``new`` tokens after ``past`` known ones, drawn from a seed."""
    draw = np.random.default_rng(100 * rows + 10 * new + past)
    specs = [record.spec() for record in manifest.inputs]
    caches = caches_of(specs, [record.name for record in manifest.outputs])
    assert caches is not None
    known = {
        name: draw.normal(size=[*empty.shape[:2], past, empty.shape[3]]).astype(empty.dtype)
        for name, empty in caches.empty(rows).items()
    }
    ids = draw.integers(3, 90, [rows, new])
    return {name: np.ascontiguousarray(feed) for name, feed in caches.feeds(ids, known, {}).items()}


def _bundle(
    folder: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    shapes: Mapping[str, tuple[int, int, int]],
) -> Path:
    manifest = Manifest(
        root=".",
        verdict="passed",
        target="onnx",
        opset=20,
        seed=0,
        inputs=tuple(map(_record, inputs)),
        outputs=tuple(map(_record, outputs)),
        shapes=dict(shapes),
        engine=None,
        versions={},
        sources=(),
        files={},
    )
    manifest.write(folder / "manifest.json")
    return folder


def _record(spec: TensorSpec) -> TensorRecord:
    return TensorRecord(name=spec.name, dtype=spec.dtype, shape=spec.shape, role=spec.role)
