"""Low precision in a bundle: what ships, by which budget it is held, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tests.workshop import write_recipe
from toolkit.errors import CapabilityError, ExportError, RecipeError
from toolkit.pipeline import export_recipe, prove_bundle
from toolkit.recipe import load_recipe

CODE = """
from torch import nn

def classifier():
    return Net(nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(),
                             nn.Linear(256, 10)))

class Net(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"logits": self.inner(x)}
"""
RECIPE = """
model:
  ensemble:
    combine: linear
    members:
      - {factory: "quantised_net:classifier", weights: net.safetensors, name: a}
      - {factory: "quantised_net:classifier", weights: net.safetensors, name: b}
inputs: {x: "float32[batch, 64]"}
shapes: {batch: [1, 16, 32]}
"""
# The same as a file, which needs no exporter: what is not about PyTorch is tried with it.
FILE = """
model:
  ensemble: {combine: linear, members: [{onnx: net.onnx, name: a}, {onnx: net.onnx, name: b}]}
shapes: {batch: [1, 16, 32]}
"""


# Weights are random, so that choices are closer than those of a trained model.
WIDE = "cases: 2, inputs: real.npz, quantised: {agreement: 0.8, divergence: 0.1}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantised")
    generator = torch.Generator().manual_seed(0)
    sizes = {0: (256, 64), 2: (256, 256), 4: (10, 256)}
    tensors = {
        f"inner.{place}.weight": torch.randn(size, generator=generator) / size[1] ** 0.5
        for place, size in sizes.items()
    }
    tensors |= {f"inner.{place}.bias": torch.zeros(size[0]) for place, size in sizes.items()}
    save_file(tensors, path / "net.safetensors")
    (path / "quantised_net.py").write_text(CODE)
    write_file(path / "net.onnx", tensors)
    rows = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    np.savez(path / "real.npz", x=rows)
    return path


def write_file(path, tensors):
    nodes, last = [], "x"
    for place in (0, 2, 4):
        given = [last, f"inner.{place}.weight", f"inner.{place}.bias"]
        last = "logits" if place == 4 else f"h{place}"
        name = f"inner.{place}/Gemm"
        nodes.append(onnx.helper.make_node("Gemm", given, [last], name=name, transB=1))
        if place < 4:
            nodes.append(onnx.helper.make_node("Tanh", [last], [f"t{place}"], name=f"tanh{place}"))
            last = f"t{place}"
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 64), ("logits", 10))
    ]
    stored = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "net", sides[:1], sides[1:], stored)
    imports = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), path)


def export(folder, settings, out, parity=WIDE, recipe=FILE):
    text = f"{recipe}export: {{{settings}}}\nparity: {{{parity}}}\n"
    recipe = load_recipe(write_recipe(folder, text, f"{out}.yaml"), allow_code=True)
    return export_recipe(recipe, folder, folder / out)


def kinds(outcome):
    return [node.op_type for node in onnx.load(outcome.folder / "model.onnx").graph.node]


def figures(outcome, gate, label):
    return [
        check.measured
        for verdict in outcome.report.verdicts
        if verdict.candidate.endswith(label)
        for check in verdict.checks
        if check.gate == gate
    ]


def test_int8_is_smaller_and_both_proofs_are_in_the_report(folder):
    outcome = export(folder, "precision: int8", "int8", recipe=RECIPE)
    assert outcome.report.passed
    record = outcome.manifest.quantisation
    assert record.nodes == 3  # members are one, they are equal
    assert record.calibration == "16 batches of real.npz"
    assert record.bytes_after < 0.3 * record.bytes_before
    assert kinds(outcome).count("DequantizeLinear") >= 6
    # The exact proof is that of the float graph, with laws; the budget's is that of the file.
    names = {verdict.candidate for verdict in outcome.report.verdicts}
    assert "onnxruntime cpu, in float32" in names
    levels = {
        check.level
        for verdict in outcome.report.verdicts
        if verdict.candidate == "onnxruntime cpu, in float32"
        for check in verdict.checks
    }
    assert levels == {"G1", "G2", "G3", "G4"}
    assert 0 < max(figures(outcome, "mean divergence", ", int8")) < 0.1
    assert "held to a budget, not to rounding" in outcome.report.notes[-1]
    assert prove_bundle(outcome.folder, allow_code=True).passed


def test_weights_of_4_bits_need_no_data(folder):
    outcome = export(folder, "precision: int4_weights", "int4")
    assert outcome.report.passed
    assert outcome.manifest.quantisation.calibration == "none"
    assert kinds(outcome).count("MatMulNBits") == 3


def test_what_is_kept_stays_in_float(folder):
    settings = 'precision: int8_dynamic, keep_float32: ["*inner.0*"]'
    outcome = export(folder, settings, "kept")
    assert outcome.report.passed
    record = outcome.manifest.quantisation
    assert (record.nodes, len(record.kept)) == (2, 1)
    assert "inner.0" in record.kept[0]
    assert kinds(outcome).count("MatMulInteger") == 2


def test_ranges_need_real_inputs(folder):
    with pytest.raises(RecipeError) as caught:
        export(folder, "precision: int8", "unreal", "cases: 2")
    assert "the recipe names none" in caught.value.message
    assert "calibration: data.npz" in caught.value.hint


def test_keeping_everything_is_refused(folder):
    with pytest.raises(
        ExportError, match=r"quantised nothing: .* 3 are products .* 3 of them kept"
    ):
        export(folder, 'precision: int8_dynamic, keep_float32: ["*"]', "none")


def test_calibration_is_for_what_has_ranges(folder):
    with pytest.raises(RecipeError, match=r"export\.calibration: needs int8 or fp8"):
        export(folder, "precision: float32, calibration: real.npz", "useless")


def test_fp8_says_which_package_makes_it(folder):
    with pytest.raises(CapabilityError) as caught:
        export(folder, "precision: fp8", "fp8", recipe=f"target: tensorrt-rtx{FILE}")
    assert "nvidia-modelopt" in caught.value.hint
    assert caught.value.exit_code == 4
