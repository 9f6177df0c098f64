"""A bundle with new weights: published whole, proven against them, or left as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import save_file

import graphs
from tests.workshop import RECIPE, weights, write_recipe
from toolkit.bundle import (
    Bundle,
    EngineRecord,
    Manifest,
    QuantisationRecord,
    hash_file,
    open_bundle,
)
from toolkit.errors import CapabilityError, RefitError, ToolkitError
from toolkit.pipeline import RefitOptions, export_recipe, prove_bundle, refit_bundle
from toolkit.pipeline.refit import _check_kind as check_kind
from toolkit.recipe import load_recipe


@pytest.fixture
def shop(exported, tmp_path):
    """A workshop with its bundle and with later weights of both members."""
    folder, out, _ = exported
    shutil.copytree(folder, tmp_path / "shop")
    shutil.copytree(out, tmp_path / "bundle")
    for kind in ("linear", "deep"):
        save_file(weights(kind, 9), tmp_path / "shop" / f"later-{kind}.safetensors")
    return tmp_path / "shop"


def refitted(shop, out="new", **options):
    given = {"member": "linear", "allow_code": True, **options}
    given.setdefault("weights", shop / "later-linear.safetensors")
    return refit_bundle(shop.parent / "bundle", RefitOptions(**given), shop.parent / out)


def test_one_member_is_replaced_and_the_bundle_is_a_fresh_one(shop):
    outcome, found = refitted(shop)
    assert outcome.report.passed
    assert found.replaced == (
        "linear/module.module.inner.weight", "linear/module.module.inner.bias",
    )  # fmt: skip
    text = RECIPE.replace("weights: linear.", "weights: later-linear.")
    recipe = load_recipe(write_recipe(shop, text), allow_code=True)
    fresh = export_recipe(recipe, shop, shop.parent / "fresh")
    bundle = open_bundle(shop.parent / "new")  # which holds every file against its hash
    for file in ("model.onnx", "model.onnx.data", "recipe.yaml"):
        if file in fresh.manifest.files:
            old, new = fresh.folder / file, bundle.folder / file
            if file == "model.onnx":
                have, want = graphs.Weights(new), graphs.Weights(old)
                assert {n: have[n].tobytes() for n in have} == {n: want[n].tobytes() for n in want}
                assert graphs.differences(new, old) == ()
            else:
                assert new.read_bytes() == old.read_bytes()
    assert bundle.manifest.sources == fresh.manifest.sources
    assert bundle.manifest.inputs == fresh.manifest.inputs
    assert prove_bundle(bundle.folder, allow_code=True) == outcome.report


def test_a_recipe_replaces_all_members_in_place(shop):
    text = RECIPE.replace("linear.safe", "later-linear.safe").replace(
        "deep.safe", "later-deep.safe"
    )
    recipe = write_recipe(shop, text, "later.yaml")
    outcome, found = refitted(shop, out="bundle", weights=recipe, member=None)
    assert outcome.report.passed
    assert len(found.replaced) == 6
    assert prove_bundle(shop.parent / "bundle", allow_code=True).passed
    assert not list(shop.parent.glob(".bundle*"))


def test_a_proof_that_fails_leaves_the_old_bundle(shop, monkeypatch):
    """Weights that are put where they do not belong, as a graph that was not understood."""
    before = hash_file(shop.parent / "bundle" / "manifest.json")
    real = graphs.WeightPatch.put
    monkeypatch.setattr(
        graphs.WeightPatch, "put", lambda self, name, array, piece: real(self, name, -array, piece)
    )
    outcome, _ = refitted(shop, out="bundle")
    assert not outcome.report.passed
    assert outcome.folder == shop.parent / "bundle.failed"
    assert json.loads((outcome.folder / "manifest.json").read_text())["verdict"] == "failed"
    assert hash_file(shop.parent / "bundle" / "manifest.json") == before


def changed(shop, old, new):
    return write_recipe(shop, RECIPE.replace(old, new), "other.yaml")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"member": "third"}, "the bundle has no model 'third'"),
        ({"member": None}, "is made of 2 models, and it is not said which"),
        ({"weights": ".."}, "found a folder, wanted a safetensors file for 'linear'"),
        (
            {"weights": "later-deep.safetensors"},
            r"deep\.safetensors does not fit shop:linear",
        ),
        ({"weights": ("0.25, 0.75", "0.5, 0.5")}, "ensemble: weights: found"),
        ({"weights": ("[1, 4, 8]", "[1, 4, 9]")}, "shapes.batch is"),
        ({"weights": ("shop:linear", "shop:deep")}, "ensemble/linear is: found nothing"),
    ],
)
def test_other_weights_are_refused_in_words(shop, options, text):
    given = dict(options)
    if isinstance(given.get("weights"), tuple):
        given |= {"weights": changed(shop, *given["weights"]), "member": None}
    elif "weights" in given:
        given["weights"] = shop / given["weights"]
    with pytest.raises(ToolkitError, match=text):
        refitted(shop, **given)
    assert not (shop.parent / "new").exists()


def test_old_weights_that_are_gone_are_told_and_exported_afresh_if_asked(shop):
    shutil.copyfile(shop / "later-deep.safetensors", shop / "deep.safetensors")
    with pytest.raises(RefitError, match=r"deep\.safetensors of deep has changed since") as found:
        refitted(shop)
    assert "--reexport" in found.value.hint
    outcome, replaced = refitted(shop, reexport=True)
    assert outcome.report.passed
    assert replaced is None


def test_a_graph_that_follows_from_its_weights_is_refused(shop):
    path = shop.parent / "bundle" / "manifest.json"
    quantised = QuantisationRecord.model_construct()
    manifest = Manifest.read(path).model_copy(update={"quantisation": quantised})
    with pytest.raises(RefitError, match="was quantised, which was decided by its old weights"):
        check_kind(Bundle(shop.parent / "bundle", manifest))


def with_engine(shop, **options):
    """The bundle with a plan, as TensorRT would have left it."""
    path = shop.parent / "bundle" / "manifest.json"
    plan = shop.parent / "bundle" / "model.plan"
    plan.write_bytes(b"a plan")
    engine = EngineRecord(
        flavour="tensorrt", version="11", compute_capabilities=("8.9",), layers=1, options=options
    )
    old = Manifest.read(path)
    files = {**old.files, "model.plan": hash_file(plan)}
    old.model_copy(update={"engine": engine, "target": "tensorrt", "files": files}).write(path)


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_without_a_gpu_the_engine_is_left_out_and_the_command_told(shop):
    with_engine(shop, refit="any")
    with pytest.raises(CapabilityError, match="cannot be refitted: this machine lacks"):
        refitted(shop, out="bundle")
    outcome, _ = refitted(shop)
    assert outcome.report.passed
    assert "without its engine" in outcome.unbuilt.message
    assert f"toolkit refit {shop.parent / 'bundle'} --with" in outcome.unbuilt.hint
    assert f"toolkit build {shop.parent / 'new'}" in outcome.unbuilt.hint
    assert open_bundle(shop.parent / "new").manifest.engine is None


def test_an_engine_is_refitted_with_the_new_graph_or_was_not_built_so(shop, monkeypatch):
    with_engine(shop)
    with pytest.raises(CapabilityError, match="was not built to take other weights") as found:
        refitted(shop, out="bundle")
    assert "--refit any" in found.value.hint
    with_engine(shop, refit="any")
    asked = []

    def stand_in(engine, model, changed, out, progress):
        asked.append((engine.path.read_bytes(), model.name, changed))
        out.write_bytes(b"another plan")
        return replace(engine, path=out)

    monkeypatch.setattr("toolkit.pipeline.refit.require_refit", lambda flavour: None)
    monkeypatch.setattr("toolkit.pipeline.refit.refit_engine", stand_in)
    _, done = refitted(shop, out="bundle")
    assert asked == [(b"a plan", "model.onnx", done.replaced)]
    bundle = open_bundle(shop.parent / "bundle")
    assert (bundle.folder / "model.plan").read_bytes() == b"another plan"
    assert bundle.manifest.engine.compute_capabilities == ("8.9",)
    assert bundle.manifest.engine.options == {"refit": "any"}
