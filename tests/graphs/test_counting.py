"""Float types, conditionals and operators of a graph, and where its nodes came from."""

from __future__ import annotations

import onnx

from graphs import census, origins

TEXT = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
g (float[batch,4] x, bool c) => (float[batch,4] y) <bool stored = {1}>
{ half = Cast <to = 10> (x)
  low = Cast <to = 16> (half)
  back = Cast <to = 1> (low)
  twice = local.Twice (back)
  held = Constant <value = bool {1}> ()
  z = If (c) <then_branch = t () => (float[batch,4] a) { a = Relu (twice) },
    else_branch = e () => (float[batch,4] b) { b = Neg (twice) }>
  w = If (held) <then_branch = t2 () => (float[batch,4] a2) { a2 = Relu (z) },
    else_branch = e2 () => (float[batch,4] b2) { b2 = Neg (z) }>
  y = If (stored) <then_branch = t3 () => (float[batch,4] a3) { a3 = Relu (w) },
    else_branch = e3 () => (float[batch,4] b3) { b3 = Neg (w) }> }
<domain: "local", opset_import: ["" : 20]>
Twice (v) => (w) { w = Add (v, v) }"""


def write(path):
    model = onnx.parser.parse_model(TEXT)
    inner = model.graph.node[5].attribute[0].g.node[0]
    inner.name = "inside"
    inner.metadata_props.append(onnx.StringStringEntryProto(key="module", value="block.act"))
    body = model.functions[0].node[0]
    body.name = "in the body"
    body.metadata_props.append(onnx.StringStringEntryProto(key="member", value="a, b"))
    onnx.save(model, path)
    return path


def test_everything_counts_inside_branches_and_functions(tmp_path):
    found = census(write(tmp_path / "model.onnx"))
    assert found.floats == {"float32", "float16", "bfloat16"}
    assert (found.conditionals, found.unconditional) == (3, 2)
    wanted = {"Cast": 3, "If": 3, "Relu": 3, "Neg": 3, "Add": 1, "Constant": 1}
    assert found.operators == wanted


def test_nodes_of_branches_and_bodies_have_origins(tmp_path):
    found = origins(write(tmp_path / "model.onnx"))
    assert {name: str(origin) for name, origin in found.items()} == {
        "inside": "module block.act", "in the body": "member a, b",
    }  # fmt: skip
