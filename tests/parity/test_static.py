"""G0: each thing a bundle's graph may not hold, by the text it is refused with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.artifacts import TensorSpec
from toolkit.parity.static import check_files, hash_files

INPUTS = (TensorSpec("x", "float32", ("batch", 3)),)


def graph(folder, change=lambda model: None, dim="batch"):
    """y = x @ w, with w in a file of its own."""
    weight = numpy_helper.from_array(np.ones((3, 300), np.float32), "w")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="/encoder/layer.0/MatMul")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [dim, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [dim, 300])],
            [weight],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("strange", 1)],
        ir_version=10,
    )
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data")
    changed = onnx.load(path, load_external_data=False)
    change(changed)
    path.write_bytes(changed.SerializeToString())
    return path


def problems(path) -> dict[str, str]:
    verdict = check_files(path, INPUTS)
    assert verdict.passed == (not verdict.failures)
    assert {check.level for check in verdict.checks} == {"G0"}
    return {check.gate: check.detail for check in verdict.failures}


def test_a_good_file_passes_and_its_node_names_are_no_paths(tmp_path):
    path = graph(tmp_path)
    assert problems(path) == {}
    assert [check.gate for check in check_files(path, INPUTS).checks] == [
        "checker", "domains", "dimensions", "paths", "data",
    ]  # fmt: skip
    assert set(hash_files(path)) == {"model.onnx", "model.onnx.data"}


def test_an_operator_that_is_defined_nowhere(tmp_path):
    def change(model):
        model.graph.node[0].domain = "strange"

    found = problems(graph(tmp_path, change))["domains"]
    assert found == "node '/encoder/layer.0/MatMul' is strange::MatMul, defined nowhere"


def test_an_operator_with_its_definition_is_fine(tmp_path):
    def change(model):
        node = helper.make_node("MatMul", ["a", "b"], ["c"])
        opset = [helper.make_opsetid("", 20)]
        model.functions.append(
            helper.make_function("strange", "MatMul", ["a", "b"], ["c"], [node], opset)
        )
        model.graph.node[0].domain = "strange"

    assert problems(graph(tmp_path, change)) == {}


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (None, "dimension 0 of input 'x' has no name"),
        ("s72", "dimension 0 of input 'x' is 's72', not ranged"),
    ],
)
def test_a_dimension_that_nothing_ranges(tmp_path, dim, text):
    assert problems(graph(tmp_path, dim=dim)) == {"dimensions": text}


@pytest.mark.parametrize("path", ["/srv/jobs/7/model.py", "C:\\jobs\\model.py"])
def test_a_path_of_some_machine(tmp_path, path):
    def change(model):
        entry = model.graph.node[0].metadata_props.add()
        entry.key, entry.value = "stack", f'File "{path}", line 3'

    (text,) = problems(graph(tmp_path, change)).values()
    assert text.startswith("metadata 'stack' of node '/encoder/layer.0/MatMul' holds the path")


def test_weights_outside_the_folder(tmp_path):
    def change(model):
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = "../model.onnx.data"

    (tmp_path / "inner").mkdir()
    found = problems(graph(tmp_path / "inner", change))
    assert found["data"] == "weight 'w' lies outside the folder, at '../model.onnx.data'"
    assert "checker" in found


def test_weights_that_are_missing_or_cut_short(tmp_path):
    path = graph(tmp_path)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    assert "of 'model.onnx.data', past its end" in problems(path)["data"]
    data.unlink()
    assert problems(path)["data"] == "weight 'w' lies in 'model.onnx.data', which is not there"
