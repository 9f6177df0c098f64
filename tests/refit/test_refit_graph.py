"""New weights in a graph are what exporting them afresh gives, byte for byte; or a name is told."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphs
from tests.moe_models import write_tiny
from tests.workshop import write_huggingface, write_recipe, write_workshop
from toolkit.errors import RefitError
from toolkit.export import ExportOptions, export_source
from toolkit.pipeline.graph import asked_passes, fuse_leaves
from toolkit.pipeline.plan import make_plan
from toolkit.recipe import load_recipe
from toolkit.refit import Leaf, refit_graph

BERT = "model: {checkpoint: bert-old}\nexport: {precision: PRECISION}\n"
PAIR = """
model:
  ensemble:
    combine: linear
    members: [{checkpoint: bert-old, name: first}, {checkpoint: bert-other, name: second}]
"""
MOE = """
model: {checkpoint: mixtral-old}
shapes: {batch: [1, 1, 2], sequence: [1, 4, 16]}
export: {experts: LOWERING, precision: PRECISION}
"""
OWN = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 4)
        self.logarithm = nn.Parameter(torch.zeros(4))
        self.idle = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return self.inner(x) * torch.exp(self.logarithm)
"""


def moved(folder, seed, only=""):
    """The checkpoint with every float, or those whose name has a part, drawn anew."""
    file = folder / "model.safetensors" if folder.is_dir() else folder
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and only in name
        else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def written(kind, folder, seed):
    write = write_tiny if kind == "mixtral" else write_huggingface
    return moved(write(folder, kind, seed, num_hidden_layers=1), seed)


class Shelf:
    """Checkpoints in one folder, each exported once."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {}

    def graph(self, text, out):
        """The plan of a recipe, and its graph at ``out``, which nobody proved."""
        recipe = load_recipe(write_recipe(self.folder, text), allow_code=True)
        plan = make_plan(recipe, self.folder)
        members = {name: self._member(leaf, plan) for name, leaf in plan.leaves()}
        fuse_leaves(plan, members, out, asked_passes(plan))
        return plan

    def _member(self, leaf, plan):
        precision = plan.recipe.export.exported
        key = (leaf.origin.files[0], precision, tuple(plan.shapes))
        if key not in self.files:
            out = self.folder / f"{len(self.files)}.onnx"
            options = ExportOptions(precision=precision)
            self.files[key] = export_source(leaf.origin, plan.shapes, options, out).path
        return self.files[key]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    for kind in ("bert", "mixtral"):
        for seed, name in enumerate(("old", "new", "other")):
            if (kind, name) != ("mixtral", "other"):
                written(kind, folder / f"{kind}-{name}", seed)
    return Shelf(folder)


def leaves(old, new, several=False):
    return [
        Leaf(name, f"{name}/" if several else "", a.origin,
             None if a.origin == b.origin else b.origin, old.recipe.export.exported)
        for (name, a), (_, b) in zip(old.leaves(), new.leaves(), strict=True)
    ]  # fmt: skip


CASES = {
    "float16": BERT.replace("PRECISION", "float16"),
    "mixed": BERT.replace("PRECISION", "mixed_float16"),
    "one of two": PAIR,
    "conditionals": MOE.replace("LOWERING", "conditionals"),
    "native": MOE.replace("LOWERING", "native"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_a_fresh_export(case, shelf, tmp_path):
    text = CASES[case].replace("PRECISION", "float32")
    old = shelf.graph(text, tmp_path / "model.onnx")
    new = shelf.graph(text.replace("-old", "-new"), tmp_path / "fresh.onnx")
    found = refit_graph(tmp_path / "model.onnx", leaves(old, new, case == "one of two"), old.shapes)
    have, want = graphs.Weights(tmp_path / "model.onnx"), graphs.Weights(tmp_path / "fresh.onnx")
    assert list(have) == list(want)
    differ = [n for n in want if have[n].tobytes() != want[n].tobytes()]
    assert differ == []
    assert len(found.replaced) > 10
    assert found.unread == ()
    assert graphs.differences(tmp_path / "model.onnx", tmp_path / "fresh.onnx") == ()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a random model, whose norms are all ones, and its plan and graph."""
    folder = tmp_path_factory.mktemp("bert")
    write_huggingface(folder / "bert-old", "bert", 0, num_hidden_layers=1)
    text = BERT.replace("PRECISION", "mixed_float16")
    return folder, Shelf(folder).graph(text, folder / "m.onnx")


def with_new(bert, tmp_path, only, change=None):
    folder, old = bert
    new = tmp_path / "new"
    shutil.copytree(folder / "bert-old", new)
    moved(new, 3, only)
    if change:
        file = new / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
    for name in ("m.onnx", "m.onnx.data"):
        shutil.copyfile(folder / name, tmp_path / name)
    (_, leaf), = old.leaves()  # fmt: skip
    source = replace(leaf.origin, folder=new)
    return tmp_path / "m.onnx", [Leaf("old", "", leaf.origin, source, "float32")], old.shapes


def test_equal_weights_that_part_are_named(bert, tmp_path):
    with pytest.raises(RefitError) as found:
        refit_graph(*with_new(bert, tmp_path, "layer.0.output.LayerNorm.weight"))
    assert "LayerNorm.weight stands for old: model.bert" in found.value.message
    assert "which were equal and part now" in found.value.message
    assert "--reexport" in found.value.hint


def test_a_weight_that_half_precision_cannot_hold_is_named(bert, tmp_path):
    def large(weights):
        return {n: t * 1e7 if n.endswith("pooler.dense.weight") else t for n, t in weights.items()}

    with pytest.raises(RefitError, match=r"pooler\.dense\.weight is in float16, and its new value"):
        refit_graph(*with_new(bert, tmp_path, "pooler", large))


def test_other_names_or_shapes_are_refused(bert, tmp_path):
    def cut(weights):
        return {n: t[:2] if n.startswith("classifier") else t for n, t in weights.items()}

    path, (leaf,), shapes = with_new(bert, tmp_path, "nothing", cut)
    config = leaf.new.folder / "config.json"
    config.write_text(config.read_text().replace('"LABEL_2"', '"LABEL_1"', 1)
                      .replace('"2": "LABEL_1"', '"1": "LABEL_1"'))  # fmt: skip
    with pytest.raises(RefitError, match=r"found model\.classifier\.\w+ .*, wanted \[3"):
        refit_graph(path, [leaf], shapes)


@pytest.mark.parametrize(
    ("changed", "text"),
    [("logarithm", "module.logarithm has changed, and was folded"), ("idle", ""), ("inner", "")],
)
def test_what_was_folded_is_named_and_what_nobody_reads_is_told(changed, text, tmp_path):
    shop = write_workshop(tmp_path / "shop")
    (shop / "own.py").write_text(OWN)
    weights = {"inner.weight": torch.randn(4, 6), "inner.bias": torch.randn(4),
               "logarithm": torch.randn(4), "idle": torch.randn(4)}  # fmt: skip
    for name in ("old", "new"):
        save_file(weights, shop / f"{name}.safetensors")
    moved(shop / "new.safetensors", 1, changed)
    recipe = (
        "model: {factory: 'own:Scaled', weights: old.safetensors}\n"
        "inputs: {x: 'float32[batch, 6]'}\nshapes: {batch: [1, 2, 4]}\n"
    )
    old = Shelf(shop).graph(recipe, tmp_path / "model.onnx")
    (_, leaf), = old.leaves()  # fmt: skip
    source = replace(leaf.origin, weights=shop / "new.safetensors")
    parts = [Leaf("own", "", leaf.origin, source, "float32")]
    if text:
        with pytest.raises(RefitError, match=text):
            refit_graph(tmp_path / "model.onnx", parts, old.shapes)
        return
    found = refit_graph(tmp_path / "model.onnx", parts, old.shapes)
    assert found.unread == (("own: module.idle",) if changed == "idle" else ())
    assert len(found.replaced) == (2 if changed == "inner" else 0)
    assert len(found.kept) == 1  # the exponential of a logarithm that stayed
