"""Members of a bundle as models of their own: what the steps compute is what the graph computes."""

from __future__ import annotations

import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import write_recipe, write_workshop
from toolkit.errors import BundleError
from toolkit.gates import combiner
from toolkit.package import check_repository
from toolkit.package.schema import parse_config
from toolkit.pipeline import export_recipe, package_apart
from toolkit.recipe import load_recipe

TAIL = """
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 1}
"""
MEMBERS = """
      - {factory: "shop:linear", weights: linear.safetensors, name: a}
      - {factory: "shop:deep", weights: deep.safetensors, name: b}
"""
CONSTANT = "model:\n  ensemble:\n    combine: linear\n    weights: [0.25, 0.75]\n    members:"
GATED = (
    "model:\n  ensemble:\n    combine: log_linear\n"
    '    gate: {model: {factory: "shop:linear", weights: gate.safetensors, name: gate,'
    " kwargs: {classes: 2}}, top_k: 1}\n    members:"
)
STACKED = f"""
model:
  stack:
    stages:{MEMBERS}
      - factory: "toolkit.gates:combiner"
        weights: combiner.safetensors
        kwargs: {{logits: "a_logits, b_logits", classes: 4, hidden: 0}}
    feeds:
      a_logits: {{output: a/logits, type: "float32[batch, 4]"}}
      b_logits: {{output: b/logits, type: "float32[batch, 4]"}}
"""
RECIPES = {
    "constant": CONSTANT + MEMBERS,
    "gated": GATED + MEMBERS,
    "stacked": STACKED,
}
X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def bundle(folder, text):
    shop = write_workshop(folder / "shop")
    generator = torch.Generator().manual_seed(3)
    gate = {"inner.weight": (2, 6), "inner.bias": (2,)}
    save_file(
        {name: torch.randn(shape, generator=generator) for name, shape in gate.items()},
        shop / "gate.safetensors",
    )
    save_file(combiner("a_logits, b_logits", 4, 0).state_dict(), shop / "combiner.safetensors")
    export_recipe(
        load_recipe(write_recipe(shop, text + TAIL), allow_code=True), shop, folder / "net"
    )
    return folder / "net"


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_steps(repository, name, feeds):
    """What a server does with an ensemble: pass tensors on from step to step."""
    config = parse_config((repository / name / "config.pbtxt").read_text(), name)
    made = dict(feeds)
    for step in config.ensemble_scheduling.step:
        graph = session(repository / step.model_name / "1" / "model.onnx")
        given = {entry.key: made[entry.value] for entry in step.input_map}
        outputs = [entry.key for entry in step.output_map]
        found = dict(zip(outputs, graph.run(outputs, given), strict=True))
        made |= {entry.value: found[entry.key] for entry in step.output_map}
    return {output.name: made[output.name] for output in config.output}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """By the kind of their recipe."""
    return {kind: bundle(tmp_path_factory.mktemp(kind), text) for kind, text in RECIPES.items()}


@pytest.mark.parametrize("kind", RECIPES)
def test_the_steps_compute_what_the_fused_graph_does(bundles, tmp_path, kind):
    net = bundles[kind]
    packaged = package_apart(net, tmp_path / "models", allow_code=True)
    assert packaged.models[-1] == "net_unfused"
    assert len(packaged.models) == {"constant": 4, "gated": 5, "stacked": 4}[kind]
    report = check_repository(tmp_path / "models")
    assert (report.findings, report.unchecked) == ((), ())
    graph = session(net / "model.onnx")
    names = [output.name for output in graph.get_outputs()]
    expected = dict(zip(names, graph.run(names, {"x": X}), strict=True))
    found = run_steps(tmp_path / "models", "net_unfused", {"x": X})
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-6)


def test_models_that_have_changed_or_are_gone_are_named_and_nothing_is_written(bundles, tmp_path):
    shutil.copytree(bundles["constant"].parent, tmp_path / "copy")
    net, shop = tmp_path / "copy" / "net", tmp_path / "copy" / "shop"
    content = bytearray((shop / "linear.safetensors").read_bytes())
    content[-1] ^= 1
    (shop / "linear.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"linear\.safetensors of member 'a' has changed"):
        package_apart(net, tmp_path / "models", allow_code=True)
    shutil.rmtree(shop)
    with pytest.raises(BundleError, match=r"lay in \.\./shop beside it, which is not there"):
        package_apart(net, tmp_path / "models", allow_code=True)
    assert not (tmp_path / "models").exists()
