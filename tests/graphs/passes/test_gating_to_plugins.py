"""Gating made ready for plugins: every attribute on the nodes, and the same six outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphs
from graphs import CONTRACTS, GatingToPlugins, GraphError
from graphs.contracts import DOMAIN, VERSION
from tests.graphs.models import session
from toolkit.artifacts import DimRange
from toolkit.engine import EngineOptions, build_engine

KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
STATED = {
    "TopKGating": {"num_experts": 16, "k": 3},
    "GroupedTopKGating": {
        "num_experts": 16, "k": 3, "groups": 4, "top_groups": 2, "group_top": 2, "scale": 2.5,
    },
}  # fmt: skip


def write(path, name, kind=TensorProto.FLOAT, **changes):
    """A graph of one gating whose every output is an output."""
    contract = CONTRACTS[name]
    function = onnx.FunctionProto()
    function.ParseFromString(_serialized(contract))
    outputs = [output.name for output in contract.outputs]
    attributes = STATED[name] | changes
    inputs = [parameter.name for parameter in contract.inputs]
    node = helper.make_node(name, inputs, outputs, name="gate", domain=DOMAIN, **attributes)
    experts = attributes["num_experts"]
    shapes = {"logits": ["tokens", experts], "bias": [experts]}
    graph = helper.make_graph(
        [node],
        "gating",
        [helper.make_tensor_value_info(each, kind, shapes[each]) for each in inputs],
        [helper.make_tensor_value_info(o.name, KINDS[o.dtypes[0]], None) for o in contract.outputs],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    onnx.save(model, path)
    return path


def _serialized(contract) -> bytes:
    import onnx_ir as ir

    return ir.serde.serialize_function(contract.function(20)).SerializeToString()


@pytest.mark.parametrize("name", sorted(STATED))
@pytest.mark.parametrize("split", [False, True])
def test_what_is_computed_stays_and_every_attribute_is_written(tmp_path, name, split):
    source = write(tmp_path / "in.onnx", name)
    out = tmp_path / "out.onnx"
    (report,) = graphs.rewrite(source, [GatingToPlugins(split=split)], out, required=[])
    assert report.sites == ("gate",)
    model = onnx.load(out)
    choice = name.replace("Gating", "Choice")
    assert [n.op_type for n in model.graph.node] == (
        [choice, "ExpertDispatch"] if split else [name]
    )
    assert (name in {f.name for f in model.functions}) is not split
    for node in model.graph.node:
        contract = CONTRACTS[node.op_type]
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert list(found) == [a.name for a in contract.attributes]
        assert found["plugin_namespace"] == b"toolkit"
        assert found["plugin_version"] == b"1"
        for attribute in contract.attributes[:-2]:
            wanted = STATED[name].get(attribute.name, attribute.default)
            assert found[attribute.name] == wanted
    random = np.random.default_rng(0)
    feeds = {"logits": random.normal(size=(9, 16)).astype(np.float32)}
    if name == "GroupedTopKGating":
        feeds["bias"] = random.normal(size=16).astype(np.float32)
    before = session(source.read_bytes()).run(None, feeds)
    after = session(out.read_bytes()).run(None, feeds)
    for left, right in zip(before, after, strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 2048}, "TopKGating 'gate' has num_experts = 2048; its plugin takes up to"),
        ({"num_experts": 64, "k": 33}, "TopKGating 'gate' has k = 33; its plugin takes up to 32"),
        ({"kind": TensorProto.DOUBLE}, "reads float64, which TensorRT does not have"),
    ],
)
def test_what_no_kernel_takes_is_refused(tmp_path, changes, message):
    source = write(tmp_path / "in.onnx", "TopKGating", **changes)
    with pytest.raises(GraphError, match=message):
        graphs.rewrite(source, [GatingToPlugins()], tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.rtx
@pytest.mark.parametrize("name", sorted(STATED))
def test_a_builder_without_the_plugins_runs_the_bodies(tmp_path, name):
    source = write(tmp_path / "in.onnx", name)
    graphs.rewrite(source, [GatingToPlugins(split=True)], tmp_path / "out.onnx")
    engine = build_engine(
        tmp_path / "out.onnx",
        {"tokens": DimRange(1, 8, 64)},
        EngineOptions(),
        tmp_path / "model.plan",
    )
    assert [spec.name for spec in engine.outputs] == [o.name for o in CONTRACTS[name].outputs]
