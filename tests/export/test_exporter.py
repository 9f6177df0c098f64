"""One model exported: names, dimensions and numbers are PyTorch's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.workshop import write_huggingface, write_workshop
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.errors import ExportError
from toolkit.export import ExportOptions, adopt_onnx, export_source
from toolkit.runtime import OrtRunner, TorchRunner
from toolkit.sources import FactorySource, HuggingFaceSource

X = TensorSpec("x", "float32", ("batch", 6))


def factory(folder, kind="linear", available=(X,)):
    return FactorySource(
        kind, f"shop:{kind}", folder / f"{kind}.safetensors", available, search=folder
    )


@pytest.mark.parametrize("span", [DimRange(1, 4, 8), DimRange(1, 1, 2), DimRange(3, 3, 9)])
def test_named_dimension_is_dynamic_over_its_whole_range(tmp_path, span):
    source = factory(write_workshop(tmp_path))
    model = export_source(source, {"batch": span}, ExportOptions(), tmp_path / "m.onnx")
    assert model.inputs == (X,)
    assert model.outputs == (TensorSpec("logits", "float32", ("batch", 4)),)
    with OrtRunner(model.path) as ort, TorchRunner(source) as torch:
        for size in {span.min, span.opt, span.max}:
            x = np.random.default_rng(size).normal(size=(size, 6)).astype(np.float32)
            np.testing.assert_allclose(
                ort({"x": x})["logits"], torch({"x": x})["logits"], rtol=1e-5
            )


def test_dimension_of_one_value_is_baked_in(tmp_path):
    source = factory(write_workshop(tmp_path))
    model = export_source(
        source, {"batch": DimRange(3, 3, 3)}, ExportOptions(), tmp_path / "m.onnx"
    )
    with OrtRunner(model.path) as ort:
        assert ort.inputs[0].shape == (3, 6)


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_opset_is_the_one_asked_for(tmp_path, opset):
    source = factory(write_workshop(tmp_path))
    shapes = {"batch": DimRange(1, 2, 4)}
    model = export_source(source, shapes, ExportOptions(opset=opset), tmp_path / "m.onnx")
    assert model.opset == opset
    with OrtRunner(model.path) as ort:
        assert ort({"x": np.zeros((2, 6), np.float32)})["logits"].shape == (2, 4)


def test_data_dependent_branch_is_one_clear_error(tmp_path):
    source = factory(write_workshop(tmp_path), "sized")
    with pytest.raises(ExportError, match="sized: PyTorch cannot export it") as found:
        export_source(source, {"batch": DimRange(1, 2, 4)}, ExportOptions(), tmp_path / "m.onnx")
    assert "\n" not in found.value.message
    assert "data-dependent" in found.value.hint


@pytest.mark.parametrize("kind", ["bert", "llama", "roberta", "gpt2", "sentence"])
def test_hugging_face_models_keep_batch_and_sequence_dynamic(tmp_path, kind):
    source = HuggingFaceSource(kind, write_huggingface(tmp_path / kind, kind))
    shapes = {"batch": DimRange(1, 2, 4), "sequence": DimRange(1, 7, source.max_sequence)}
    model = export_source(source, shapes, ExportOptions(), tmp_path / "m.onnx")
    assert model.inputs == source.inputs
    assert [spec.name for spec in model.outputs] == list(source.outputs)
    rng = np.random.default_rng(0)
    with OrtRunner(model.path) as ort, TorchRunner(source, "float64") as torch:
        for batch, sequence in [(1, 1), (2, 7), (4, source.max_sequence), (3, 2)]:
            ids = rng.integers(0, 97, (batch, sequence))
            mask = np.ones_like(ids)
            mask[0, (sequence + 1) // 2 :] = 0
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2}
            for name, expected in torch(feeds).items():
                scale = np.abs(expected).max()
                np.testing.assert_allclose(ort(feeds)[name], expected, atol=2e-6 * scale, rtol=0)


def test_foreign_onnx_needs_names_for_its_dimensions(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, [None, 6])],
        [value("y", onnx.TensorProto.FLOAT, [None, 6])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(ExportError, match=r"f\.onnx: input x: float32.* without names"):
        adopt_onnx(tmp_path / "f.onnx")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_cached_decoder_equals_the_model_without_a_cache(tmp_path, kind):
    """A prefill and then single steps, each fed the cache of the one before."""
    folder = write_huggingface(tmp_path / kind, kind)
    source = HuggingFaceSource(kind, folder, cache=True)
    shapes = {
        "batch": DimRange(1, 2, 4), "sequence": DimRange(1, 3, 8),
        "past_sequence": DimRange(0, 4, 30),
    }  # fmt: skip
    model = export_source(source, shapes, ExportOptions(), tmp_path / "m.onnx")
    assert [spec.name for spec in model.outputs] == list(source.outputs)
    ids = np.random.default_rng(0).integers(0, 97, (2, 12))
    plain = HuggingFaceSource(kind, folder)
    with TorchRunner(plain, "float64") as torch:
        whole = torch({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    caches = {
        spec.name: np.zeros(spec.resolve({"batch": 2, "past_sequence": 0}), np.float32)
        for spec in model.inputs
        if spec.name.startswith("past_key_values.")
    }
    found, at = [], 0
    with OrtRunner(model.path) as ort:
        for step in (5, *[1] * 7):
            new = slice(at, at + step)
            outputs = ort(
                {
                    "input_ids": ids[:, new],
                    "attention_mask": np.ones((2, at + step), np.int64),
                    "position_ids": np.tile(np.arange(at, at + step), (2, 1)),
                    **caches,
                }
            )
            found.append(outputs["logits"])
            caches = {name: outputs[name.replace("past_key_values", "present")] for name in caches}
            at += step
    np.testing.assert_allclose(np.concatenate(found, 1), whole, atol=1e-6 * np.abs(whole).max())


def test_half_precision_is_in_the_graph_and_not_in_its_interface(tmp_path):
    source = factory(write_workshop(tmp_path))
    options = ExportOptions(precision="float16")
    model = export_source(source, {"batch": DimRange(1, 2, 4)}, options, tmp_path / "m.onnx")
    assert [spec.dtype for spec in (*model.inputs, *model.outputs)] == ["float32", "float32"]
    half = {t.name for t in onnx.load(model.path).graph.initializer if t.data_type == 10}
    assert any(name.endswith("weight") for name in half)
    x = np.ones((2, 6), np.float32)
    with OrtRunner(model.path) as ort, TorchRunner(source, "float64") as torch:
        error = np.abs(ort({"x": x})["logits"] - torch({"x": x})["logits"]).max()
    assert 1e-5 < error < 1e-2
