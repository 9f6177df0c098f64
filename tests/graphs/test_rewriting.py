"""rewrite: passes in order, reports, and no silent no-op; the thin passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs import (
    PASSES,
    DeduplicateInitializers,
    DeduplicateSubgraphs,
    GraphError,
    NearMiss,
    Pass,
    PassReport,
    RemoveUnusedNodes,
    describe,
    rewrite,
)
from graphs.rewriting import apply_passes
from tests.graphs.models import net, run, write

TWINS = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[b, 4] x) => (float[b, 3] y)
{
  h1 = MatMul (x, w1)
  h2 = MatMul (x, w2)
  unused = Relu (h1)
  y = Add (h1, h2)
}
"""
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_passes_run_in_order_and_report(tmp_path):
    source = write(tmp_path / "m.onnx", TWINS, w1=WEIGHT, w2=WEIGHT)
    passes = [DeduplicateInitializers(), DeduplicateSubgraphs(), RemoveUnusedNodes()]
    reports = rewrite(source, passes, tmp_path / "out.onnx", required=[p.name for p in passes])
    assert [(r.name, r.sites) for r in reports] == [
        ("deduplicate_initializers", ("w2",)),
        ("deduplicate_subgraphs", ("MatMul",)),
        ("remove_unused_nodes", ("Relu",)),
    ]
    assert describe(tmp_path / "out.onnx").operators == {"Add": 1, "MatMul": 1}
    x = np.ones((1, 4), np.float32)
    assert np.array_equal(run(tmp_path / "out.onnx", x=x), 2 * x @ WEIGHT)


def test_unused_functions_and_initializers_go(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    net (float[b, 3] x) => (float[b, 3] y) { y = Relu (x) }
    <domain: "local", opset_import: ["" : 20]>
    Same (x) => (y) { y = Identity (x) }
    """
    source = write(tmp_path / "m.onnx", text, idle=np.ones(3, np.float32))
    (report,) = rewrite(source, [RemoveUnusedNodes()], tmp_path / "out.onnx")
    assert report.sites == ("idle", "Same")
    assert describe(tmp_path / "out.onnx").functions == ()


@pytest.mark.parametrize("name", ["deduplicate_initializers", "deduplicate_subgraphs"])
def test_a_required_pass_must_rewrite_something(name, tmp_path):
    source = net(tmp_path / "m.onnx", 1)
    step = PASSES[name]()
    assert rewrite(source, [step], tmp_path / "out.onnx") == [PassReport(name)]
    with pytest.raises(GraphError) as caught:
        rewrite(source, [step], tmp_path / "never.onnx", required=[name])
    assert caught.value.message == f"pass {name!r} was asked for and rewrote nothing"
    assert caught.value.hint == "remove it from the passes"
    assert not (tmp_path / "never.onnx").exists()


class Misses:
    name = "misses"

    def requires(self, model):
        pass

    def apply(self, model):
        return PassReport(self.name, near_misses=(NearMiss("head/Gemm", "has a bias"),))

    def ensures(self, model):
        pass


class Appends(Misses):
    """A pass that puts what others read last."""

    name = "appends"

    def apply(self, model):
        node = next(iter(model.graph))
        model.graph.remove(node)
        model.graph.append(node)
        return PassReport(self.name, (node.name,))


def test_the_graph_is_sorted_after_a_pass(tmp_path):
    rewrite(net(tmp_path / "m.onnx", 1), [Appends()], tmp_path / "out.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == [
        "MatMul",
        "Relu",
    ]


def test_the_error_tells_the_nearest_misses(tmp_path):
    with pytest.raises(GraphError) as caught:
        rewrite(net(tmp_path / "m.onnx", 1), [Misses()], tmp_path / "o.onnx", required=["misses"])
    assert caught.value.hint == "nearest misses: head/Gemm: has a bias"


def test_a_required_pass_must_be_among_the_passes():
    with pytest.raises(GraphError) as caught:
        apply_passes(None, [], ["fold"])
    assert caught.value.message == "pass 'fold' is required but not among the passes to apply"


@pytest.mark.parametrize(("name", "kind"), PASSES.items())
def test_passes_are_listed_under_their_names_and_follow_the_contract(name, kind):
    assert kind.name == name
    assert isinstance(kind(), Pass)
