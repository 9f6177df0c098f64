"""Every family of graphs, built by a real TensorRT-RTX builder and read back.

``build_engine`` holds names, types, sizes, profiles, float types and conditionals of the parsed
network against the ONNX file by itself; that it would notice is shown at the end.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphs
from tests.moe_models import SHAPES as MOE_SHAPES
from tests.workshop import write_huggingface, write_recipe
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, build_engine
from toolkit.engine.comparing import held_against
from toolkit.errors import EngineError
from toolkit.pipeline import make_plan
from toolkit.pipeline.graph import asked_passes, export_leaves, fuse_leaves
from toolkit.progress import silent
from toolkit.recipe import load_recipe

pytestmark = pytest.mark.rtx

SAMPLES = Path(__file__).parents[2] / "samples" / "recipes"
DECODERS = "shapes: {batch: [1, 2, 3], sequence: [1, 4, 9], past_sequence: [0, 8, 20]}\n"
ENCODER = "shapes: {batch: [1, 2, 3], sequence: [1, 4, 8]}\n"
MEMBERS = "members: [{checkpoint: gpt2, cache: true}, {checkpoint: llama, cache: true}]"
ENSEMBLE = f"model: {{ensemble: {{combine: log_linear, weights: [0.5, 0.5], {MEMBERS}}}}}\n"
MIXED = "export: {precision: mixed_float16}\n"
# A merge of two fine-tunes is the encoder; nothing of it is left but other numbers.
MERGED = """
model:
  name: merged
  merge:
    merge_method: linear
    models:
      - {model: bert, parameters: {weight: 0.25}}
      - {model: other, parameters: {weight: 0.75}}
    dtype: float32
"""
RECIPES = {
    "merged encoder": MERGED + ENCODER,
    "merged encoder in float16": MERGED + MIXED + ENCODER,
    "decoder with cache": "model: {checkpoint: gpt2, cache: true}\n" + DECODERS,
    "decoder with cache in float16": "model: {checkpoint: gpt2, cache: true}\n" + MIXED + DECODERS,
    "ensemble of decoders": ENSEMBLE + DECODERS,
    "ensemble of decoders in float16": ENSEMBLE + MIXED + DECODERS,
}
# Operators that become one layer of this kind each.
LAYERS = {
    "CONVOLUTION": ("Conv",), "SOFTMAX": ("Softmax",), "TOPK": ("TopK",),
    "MATRIX_MULTIPLY": ("MatMul", "Gemm"), "SCATTER": ("ScatterND", "ScatterElements"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("families")
    for name, key in (("bert", "num_hidden_layers"), ("gpt2", "n_layer"),
                      ("llama", "num_hidden_layers")):  # fmt: skip
        write_huggingface(made / name, name, **{key: 1})
    shutil.copytree(made / "bert", made / "other")
    weights = load_file(made / "other" / "model.safetensors")
    moved = {name: value + 0.01 for name, value in weights.items()}
    save_file(moved, made / "other" / "model.safetensors", metadata={"format": "pt"})
    return made


def plan_of(folder: Path, text: str):
    return make_plan(load_recipe(write_recipe(folder, text), allow_code=True), folder)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The graph of every model by its name; families share them."""
    out = tmp_path_factory.mktemp("exported")
    found = {}
    for name in ("merged encoder", "ensemble of decoders"):
        (out / name).mkdir()
        found |= export_leaves(plan_of(folder, RECIPES[name]), out / name, silent)
    return found


def built(path: Path, shapes, *, profile: str = ""):
    """An engine of a graph, held against the graph."""
    narrow = {"narrow": {profile: DimRange(*[shapes[profile].opt] * 3)}} if profile else {}
    options = EngineOptions(compute_capabilities=("8.9",), profiles=narrow)
    engine = build_engine(path, shapes, options, path.with_suffix(".plan"))
    graph, count = graphs.describe(path), graphs.census(path)
    assert engine.notes == ()
    for asked, found in ((graph.inputs, engine.inputs), (graph.outputs, engine.outputs)):
        assert [(t.name, t.dtype) for t in asked] == [(t.name, t.dtype) for t in found]
    assert engine.conditionals == count.conditionals
    for kind, operators in LAYERS.items():
        nodes = sum(count.operators.get(name, 0) for name in operators)
        assert engine.kinds.get(kind, 0) == nodes, kind
    floats = {name for name in engine.dtypes if "float" in name}
    assert floats == count.floats
    return engine


@pytest.mark.parametrize("name", RECIPES)
def test_models_and_ensembles_of_transformers(folder, exported, tmp_path, name):
    plan = plan_of(folder, RECIPES[name])
    path = tmp_path / "model.onnx"
    fuse_leaves(plan, exported, path, asked_passes(plan))
    engine = built(path, plan.shapes)
    assert ("float16" in engine.dtypes) == ("float16" in name)


def random_weights(folder: Path, text: str) -> None:
    """Weights of the digit classifiers, which training would give."""
    spec = importlib.util.spec_from_file_location("digits", folder / "digits_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = load_recipe(write_recipe(folder, text), allow_code=True, check_files=False)
    (folder / "weights" / "digits").mkdir(parents=True)
    for leaf in recipe.leaves():
        torch.manual_seed(0)
        model = getattr(module, leaf.factory.partition(":")[2])(**leaf.kwargs)
        save_file(model.state_dict(), folder / str(leaf.weights))


@pytest.fixture(scope="module", params=["float32", "float16"])
def digits(request, tmp_path_factory):
    """Recipes of both ensembles, and the graphs of their members."""
    folder = tmp_path_factory.mktemp("digits")
    shutil.copy(SAMPLES / "digits_models.py", folder)
    more = f"export: {{precision: {request.param}}}\n"
    texts = {
        kind: (SAMPLES / f"digits_ensemble{name}.yaml").read_text() + more
        for kind, name in (("linear", ""), ("log linear", "_log_linear"))
    }
    random_weights(folder, texts["linear"])
    return folder, texts, export_leaves(plan_of(folder, texts["linear"]), folder, silent)


@pytest.mark.parametrize("kind", ["linear", "log linear"])
def test_ensembles_of_digit_classifiers(digits, tmp_path, kind):
    folder, texts, leaves = digits
    plan = plan_of(folder, texts[kind])
    fuse_leaves(plan, leaves, tmp_path / "model.onnx", ())
    engine = built(tmp_path / "model.onnx", plan.shapes, profile="batch")
    assert engine.profiles == ("narrow",)
    assert ("float16" in engine.dtypes) == ("precision: float16" in texts[kind])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "step", [graphs.ExpertsToConditionals(), graphs.ExpertsToRows(), graphs.ExpertsToDense()]
)
def test_mixtures_of_experts(moe_graph, tmp_path, step, half):
    more = [graphs.MixedPrecision("float16")] if half else []
    path = tmp_path / "model.onnx"
    graphs.rewrite(moe_graph("mixtral").path, [step, *more], path)
    engine = built(path, MOE_SHAPES)
    conditional = isinstance(step, graphs.ExpertsToConditionals)
    assert bool(engine.conditionals) == conditional
    assert ("float16" in engine.dtypes) == half


def test_what_is_not_as_the_graph_says_is_noticed(folder, exported):
    path, shapes = exported["merged"], plan_of(folder, RECIPES["merged encoder"]).shapes
    graph = graphs.describe(path)
    ranges = {name: (span.min, span.opt, span.max) for name, span in shapes.items()}

    def tensors(all_):
        return [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in all_]

    spans = {
        t.name: [[ranges[d][step] for d in t.shape] for step in range(3)] for t in graph.inputs
    }
    found = {
        "layers": 1, "inputs": tensors(graph.inputs), "outputs": tensors(graph.outputs),
        "kinds": {}, "dtypes": {"float32": 1}, "conditionals": 0, "ranges": [spans],
    }  # fmt: skip
    assert held_against(path, [ranges], found) == []
    wrong = replace_first(found["inputs"], dtype="int32")
    with pytest.raises(EngineError, match=r"the engine has the input .* as int32"):
        held_against(path, [ranges], {**found, "inputs": wrong})
    wrong = replace_first(found["outputs"], name="other")
    with pytest.raises(EngineError, match="the engine has the outputs other, the graph has"):
        held_against(path, [ranges], {**found, "outputs": wrong})
    narrower = {**ranges, "batch": (1, 1, 1)}
    with pytest.raises(EngineError, match="profile 0 of the engine has"):
        held_against(path, [narrower], found)
    notes = held_against(path, [ranges], {**found, "dtypes": {"float16": 2}, "conditionals": 3})
    assert notes == [
        "2 layers are of float16, which no value of the graph is",
        "no layer is of float32, though values of the graph are",
        "3 conditionals came of 0 If nodes",
    ]


def replace_first(tensors, **changes):
    return [{**tensors[0], **changes}, *tensors[1:]]
