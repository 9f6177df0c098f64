"""strip_exporter_metadata: modules become names, traces and paths go."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch

from graphs import (
    Combination,
    Ensemble,
    GraphError,
    Leaf,
    StripExporterMetadata,
    fuse,
    rewrite,
)
from graphs.origin import source_expression
from tests.graphs.models import check_golden, net, run, text_of


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.lin(x)) + x


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file as PyTorch's exporter writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Net().eval(),
            (torch.zeros(2, 4),),
            path,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    return path


def nodes(path) -> dict[str, dict[str, str]]:
    graph = onnx.load(path).graph
    return {n.name: {p.key: p.value for p in n.metadata_props} for n in graph.node}


def stripped(folder, path):
    (report,) = rewrite(path, [StripExporterMetadata()], folder / "out.onnx")
    return report


def test_nodes_are_named_after_their_modules(exported, tmp_path):
    assert stripped(tmp_path, exported).near_misses == ()
    assert {name: keys["module"] for name, keys in nodes(tmp_path / "out.onnx").items()} == {
        "blocks.0.lin/Gemm": "blocks.0.lin",
        "blocks.0/Relu": "blocks.0",
        "blocks.0/Add": "blocks.0",
        "blocks.1.lin/Gemm": "blocks.1.lin",
        "blocks.1/Relu": "blocks.1",
        "blocks.1/Add": "blocks.1",
        "head/Gemm": "head",
    }


def test_nodes_keep_their_operator_and_line_of_code(exported, tmp_path):
    stripped(tmp_path, exported)
    found = nodes(tmp_path / "out.onnx")
    line = "return torch.relu(self.lin(x)) + x"
    # The innermost line outside PyTorch: nn.Linear's own F.linear(…) would say nothing.
    assert found["blocks.0.lin/Gemm"]["source"] == f"aten.linear.default: {line}"
    assert found["blocks.1/Relu"]["source"] == f"aten.relu.default: {line}"
    assert found["head/Gemm"]["source"] == "aten.linear.default: return self.head(x)"


@pytest.mark.parametrize("line", ['x = load("/srv/secret")', "y = open('C:\\secret')", "x" * 161])
def test_a_line_with_an_absolute_path_or_without_end_is_left_out(line):
    trace = f'  File "net.py", line 3, in forward\n    {line}\n'
    node = {
        "pkg.torch.onnx.stack_trace": trace,
        "pkg.torch.onnx.fx_node": "%relu : call_function[target=torch.ops.aten.relu.default]",
    }
    assert source_expression(node) == "aten.relu.default"


def test_a_node_without_traces_has_no_expression():
    assert source_expression({}) == ""
    assert source_expression({"pkg.torch.onnx.stack_trace": "nonsense"}) == ""


def test_no_path_or_trace_is_left_and_nothing_else_changes(exported, tmp_path):
    assert b"stack_trace" in exported.read_bytes()
    assert b".py" in exported.read_bytes()
    stripped(tmp_path, exported)
    content = (tmp_path / "out.onnx").read_bytes()
    for trace in (b"stack_trace", b".py", b"pkg.", b"namespace", b"class_hierarchy"):
        assert trace not in content
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert np.array_equal(run(tmp_path / "out.onnx", x=x), run(exported, x=x))


def test_the_result_is_the_stored_text(tmp_path):
    path = with_scopes(tmp_path / "m.onnx", "['', 'encoder.layer.0', 'linear_7']")
    stripped(tmp_path, path)
    check_golden("strip_exporter_metadata.txt", text_of(tmp_path / "out.onnx"))


def test_it_is_idempotent(exported, tmp_path):
    stripped(tmp_path, exported)
    first = (tmp_path / "out.onnx").read_bytes()
    assert stripped(tmp_path, tmp_path / "out.onnx").sites == ()
    assert (tmp_path / "out.onnx").read_bytes() == first


@pytest.mark.parametrize(
    ("names", "prefix"), [("ab", "a+b"), ("abc", "a+b+c"), ("abcd", "a+3")], ids=len
)
def test_members_of_an_ensemble_keep_their_prefix(names, prefix, exported, tmp_path):
    how = Combination("linear", "logits", (1 / len(names),) * len(names), "logits")
    # the first member has an input of its own, the others share all that they compute
    own = Leaf("own", exported, {"x": "z"})
    leaves = tuple(Leaf(name, exported) for name in names)
    inner = Ensemble("in", leaves, how)
    tree = Ensemble("root", (own, inner), Combination("linear", "logits", (0.5, 0.5), "logits"))
    fuse(tree, tmp_path / "out.onnx", passes=[StripExporterMetadata()])
    found = nodes(tmp_path / "out.onnx")
    prefix = "+".join(f"in/{part}" if part.isalpha() else part for part in prefix.split("+"))
    member = found[f"{prefix}/blocks.1.lin/Gemm"]
    listed = ", ".join(f"in/{name}" for name in names)
    assert (member["module"], member["member"]) == ("blocks.1.lin", listed)
    assert found["own/blocks.1.lin/Gemm"]["member"] == "own"
    assert found["interpolation"] == {}


def with_scopes(path, text: str):
    proto = onnx.load(net(path, 1))
    for node in proto.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=text)
    onnx.save(proto, path)
    return path


def test_several_nodes_of_one_kind_in_a_module_are_numbered(tmp_path):
    proto = onnx.load(with_scopes(tmp_path / "m.onnx", "['', 'block', 'call']"))
    proto.graph.node[0].op_type = "Gemm"
    proto.graph.node[1].op_type = "Gemm"
    proto.graph.node[1].input.append("square")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(3, dtype="f"), "square"))
    onnx.save(proto, tmp_path / "m.onnx")
    stripped(tmp_path, tmp_path / "m.onnx")
    assert list(nodes(tmp_path / "out.onnx")) == ["block/Gemm", "block/Gemm_1"]


@pytest.mark.parametrize("text", ["not python", "7", "[1, 2]", "['a', __import__('os')]"])
def test_scopes_that_are_no_list_are_a_near_miss(text, tmp_path):
    report = stripped(tmp_path, with_scopes(tmp_path / "m.onnx", text))
    assert [miss.reason for miss in report.near_misses] == [
        f"pkg.torch.onnx.name_scopes is no list: {text!r}"
    ] * 2
    assert all(props == {} for props in nodes(tmp_path / "out.onnx").values())


def test_documentation_and_the_exporters_model_metadata_go_and_a_users_stay(tmp_path):
    proto = onnx.load(net(tmp_path / "m.onnx", 1))
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "from /tmp/x"
    proto.graph.initializer[0].doc_string = proto.graph.input[0].doc_string = "from /tmp/x"
    proto.metadata_props.add(key="pkg.torch.version", value="2")
    proto.metadata_props.add(key="license", value="MIT")
    onnx.save(proto, tmp_path / "m.onnx")
    stripped(tmp_path, tmp_path / "m.onnx")
    again = onnx.load(tmp_path / "out.onnx")
    assert b"/tmp/x" not in (tmp_path / "out.onnx").read_bytes()
    assert [(p.key, p.value) for p in again.metadata_props] == [("license", "MIT")]


def test_what_an_operator_of_ours_computes_stays_documented(tmp_path):
    tree = Ensemble(
        "root",
        (Leaf("a", net(tmp_path / "a.onnx", 1)),),
        Combination("linear", "values", (1.0,), "logits"),
    )
    fuse(tree, tmp_path / "m.onnx", passes=[StripExporterMetadata()])
    (function,) = onnx.load(tmp_path / "m.onnx").functions
    assert function.doc_string.startswith("sum_m weights[m] * members[m]")


def test_a_required_pass_that_finds_nothing_is_an_error(tmp_path):
    path = net(tmp_path / "m.onnx", 1)
    step = StripExporterMetadata()
    with pytest.raises(GraphError) as caught:
        rewrite(path, [step], tmp_path / "out.onnx", required=[step.name])
    assert caught.value.message == (
        "pass 'strip_exporter_metadata' was asked for and rewrote nothing"
    )
    assert not (tmp_path / "out.onnx").exists()
