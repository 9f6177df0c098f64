"""Reading refuses what is malformed or unsafe; writing is exact, streaming and all or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, external_data_helper, helper, numpy_helper, parser

from graphs import GraphError, PassReport, StripExporterMetadata, describe, rewrite, store
from tests.graphs.models import net, run, write

LARGE = np.arange(600, dtype=np.float32).reshape(4, 150)


def external(folder, **changes: str):
    """A model whose weight lies in ``model.onnx.data``; ``changes`` edits its location entries."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 4] x) => (float[b, 150] y) { y = MatMul (x, weight) }
    """
    path = folder / "model.onnx"
    rewrite(write(folder / "source.onnx", text, weight=LARGE), [], path)
    (folder / "source.onnx").unlink()
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save(proto, path)
    return path


def refusal(path) -> GraphError:
    with pytest.raises(GraphError) as caught:
        describe(path)
    return caught.value


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.onnx"
    assert refusal(path).message == f"there is no ONNX file {path}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has no graph"),
        (b"not a model at all", "its bytes cannot be parsed"),
        (b"\x80\x04\x95pickle", "its bytes cannot be parsed"),
        (b"\x08\x0a", "it has no graph"),
    ],
)
def test_other_bytes_are_not_a_model(content, reason, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert refusal(path).message == f"{path} is not an ONNX model: {reason}"


def test_a_truncated_model_is_not_a_model(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    path.write_bytes(path.read_bytes()[:-10])
    assert refusal(path).message == f"{path} is not an ONNX model: its bytes cannot be parsed"


def test_a_model_needs_an_opset(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    proto = onnx.load(path)
    del proto.opset_import[:]
    onnx.save(proto, path)
    assert refusal(path).message == f"{path} is not an ONNX model: it has no opset version"


def test_names_are_utf_8(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    path.write_bytes(path.read_bytes().replace(b"hidden", b"hid\xffen"))
    assert refusal(path).message == (
        f"{path} is a malformed ONNX model: b'hid\\xffen' is not UTF-8 text"
    )


@given(content=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_graph_error(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError):
        describe(path)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_is_read_or_refused(position, value, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    source = folder / "whole.onnx"
    if not source.exists():
        net(source, 1)
    content = bytearray(source.read_bytes())
    content[position % len(content)] = value
    path = folder / "flipped.onnx"
    path.write_bytes(content)
    with contextlib.suppress(GraphError):
        rewrite(path, [StripExporterMetadata()], folder / "again.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "/etc/passwd"}, "has its data at the absolute path '/etc/passwd'"),
        (
            {"location": "../outside.data"},
            "has its data at '../outside.data', which is outside the model's folder",
        ),
        (
            {"location": "a/../../outside.data"},
            "has its data at 'a/../../outside.data', which is outside the model's folder",
        ),
        ({"location": "gone.data"}, "has its data in 'gone.data', which does not exist"),
        ({"location": ""}, "has its data in '', which does not exist"),
        ({"offset": "100"}, "needs bytes 100 to 2500 of 'model.onnx.data', which holds 2400"),
        ({"length": "2396"}, "records 2396 bytes of external data, its type and shape need 2400"),
    ],
)
def test_external_data_must_be_whole_and_inside(changes, message, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(2400))
    path = external(tmp_path / "m", **changes)
    assert refusal(path).message == f"{path}: tensor 'weight' {message}"


def test_small_external_tensors_are_taken_in(tmp_path, monkeypatch):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 4] x) => (float[b, 4] y) { y = Mul (x, weight) }
    """
    path = write(tmp_path / "model.onnx", text, weight=np.arange(4, dtype=np.float32))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    monkeypatch.chdir(tmp_path.parent)
    rewrite(path, [], tmp_path / "out.onnx")
    (tmp_path / "w").unlink()
    x = np.ones((1, 4), np.float32)
    assert np.array_equal(run(tmp_path / "out.onnx", x=x), [[0, 1, 2, 3]])


def test_attributes_in_external_data_are_taken_in(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 2] x) => (float[b, 2] y)
    { weight = Constant <value = float[2] {2, 3}> ()  y = Mul (x, weight) }
    """
    path = write(tmp_path / "model.onnx", text)
    proto = onnx.load(path)
    tensor = proto.graph.node[0].attribute[0].t
    tensor.CopyFrom(numpy_helper.from_array(np.array([2, 3], np.float32)))
    external_data_helper.set_external_data(tensor, "w")
    onnx.save(proto, path)
    rewrite(path, [], tmp_path / "out.onnx")
    (tmp_path / "w").unlink()
    assert np.array_equal(run(tmp_path / "out.onnx", x=np.ones((1, 2), np.float32)), [[2, 3]])


INNER = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[b, 300] x, bool flag) => (float[b, 300] y)
{
  y = If (flag) <
    then_branch = yes () => (float[b, 300] p) <float[300] weight> { p = Mul (x, weight) },
    else_branch = no () => (float[b, 300] q) { q = Identity (x) }
  >
}
"""


def test_external_data_of_a_subgraph_moves_to_the_main_graph(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    proto = parser.parse_model(INNER)
    weight = np.arange(300, dtype=np.float32)
    then_branch = next(a for a in proto.graph.node[0].attribute if a.name == "then_branch").g
    del then_branch.value_info[:]
    (tmp_path / "w").write_bytes(weight.tobytes())
    tensor = numpy_helper.from_array(weight, "weight")
    external_data_helper.set_external_data(tensor, "w")
    tensor.ClearField("raw_data")
    then_branch.initializer.append(tensor)
    path.write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path.parent)
    rewrite(path, [], tmp_path / "out.onnx")
    (tmp_path / "w").unlink()
    x = np.ones((1, 300), np.float32)
    assert np.array_equal(run(tmp_path / "out.onnx", x=x, flag=np.array(True)), weight[None])


def test_a_negative_offset_is_refused(tmp_path):
    path = external(tmp_path, offset="-4")
    assert refusal(path).message == (
        f"{path} is a malformed ONNX model: "
        "External data offset must be non-negative, got -4 for tensor 'weight'"
    )


def test_a_missing_output_shape_is_inferred(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 4] x) => (float[] y) { y = Relu (x) }
    """
    assert str(describe(write(tmp_path / "model.onnx", text)).outputs[0]) == "y: float32[b, 4]"


def test_a_truncated_data_file_is_said_so(tmp_path):
    path = external(tmp_path)
    os.truncate(store.data_path(path), 2000)
    error = refusal(path)
    assert error.message == (
        f"{path}: tensor 'weight' needs bytes 0 to 2400 of 'model.onnx.data', which holds 2000"
    )
    assert error.hint == ("the data file is truncated or belongs to another model; copy it again")


def test_a_link_does_not_lead_outside(tmp_path):
    (tmp_path / "m").mkdir()
    path = external(tmp_path / "m")
    data = store.data_path(path)
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    assert "which is outside the model's folder" in refusal(path).message
    data.unlink()
    os.link(tmp_path / "elsewhere", data)
    assert "which has 2 hard links" in refusal(path).message


def test_an_embedded_tensor_must_have_the_bytes_its_shape_needs(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    proto = onnx.load(path)
    proto.graph.initializer[0].dims[0] = 5
    onnx.save(proto, path)
    assert refusal(path).message == (
        f"{path}: tensor 'weight' holds 48 bytes, its type and shape need 60"
    )


def test_tensors_of_a_kibibyte_go_to_the_data_file_and_smaller_ones_stay(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 256] x) => (float[b, 256] y) { h = Mul (x, large)  y = Pow (h, small) }
    """
    large, small = np.ones(256, np.float32), np.full(255, 2, np.float32)[:1]
    source = write(tmp_path / "source.onnx", text, large=large, small=small)
    rewrite(source, [], tmp_path / "model.onnx")
    kept = {
        t.name: t.data_location
        for t in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    }
    assert kept == {"large": TensorProto.EXTERNAL, "small": TensorProto.DEFAULT}
    assert (tmp_path / "model.onnx.data").stat().st_size == 1024


def test_without_large_tensors_there_is_no_data_file(tmp_path):
    path = external(tmp_path)
    rewrite(net(tmp_path / "small.onnx", 1), [], path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "small.onnx"]


def test_a_model_may_be_rewritten_onto_itself(tmp_path):
    path = external(tmp_path)
    x = np.ones((1, 4), np.float32)
    before = run(path, x=x)
    rewrite(path, [], path)
    assert np.array_equal(run(path, x=x), before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


DTYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20)
    )
)


@given(arrays=st.lists(ARRAYS, min_size=1, max_size=4), data=st.data())
def test_what_is_written_is_what_is_read(arrays, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tensors = {f"t{i}": array for i, array in enumerate(arrays)}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"], name=name) for name in tensors]
    outputs = [
        helper.make_tensor_value_info(f"{n}_out", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in tensors.items()
    ]
    initializers = [numpy_helper.from_array(a, n) for n, a in tensors.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [], outputs, initializers),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(proto, folder / "source.onnx")
    rewrite(folder / "source.onnx", [], folder / "model.onnx")
    again = onnx.load(folder / "model.onnx")
    assert [node.name for node in again.graph.node] == list(tensors)
    assert [tensor.name for tensor in again.graph.initializer] == list(tensors)
    for tensor in again.graph.initializer:
        found = numpy_helper.to_array(tensor)
        wanted = tensors[tensor.name]
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
    first = (folder / "model.onnx").read_bytes()
    rewrite(folder / "model.onnx", [], folder / "model.onnx")
    assert (folder / "model.onnx").read_bytes() == first


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    path = external(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(GraphError) as caught:
        rewrite(path, [], path)
    assert caught.value.message == f"cannot write {path}: No space left on device"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    path = external(tmp_path)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rewrite(path, [], tmp_path / "new.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_what_is_not_valid_onnx_is_refused(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    proto = onnx.load(path)
    proto.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(proto, path)
    assert refusal(path).message == (
        f"{path} is not valid ONNX: No Op registered for NoSuchOperator with domain_version of 20"
    )


@dataclasses.dataclass(frozen=True)
class Breaks:
    """A pass that breaks the graph."""

    name = "breaks"

    def requires(self, model):
        pass

    def apply(self, model):
        for node in model.graph:
            node.op_type = "NoSuchOperator"
        return PassReport(self.name, ("all",))

    def ensures(self, model):
        pass


def test_what_a_pass_broke_is_not_written(tmp_path):
    path = net(tmp_path / "model.onnx", 1)
    with pytest.raises(GraphError) as caught:
        rewrite(path, [Breaks()], tmp_path / "out.onnx")
    assert caught.value.message.startswith(
        "out.onnx would not be valid ONNX: No Op registered for NoSuchOperator"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
