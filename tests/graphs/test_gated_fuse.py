"""fuse with a gate: the graph holds the gate and computes what PyTorch's definition says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from graphs import Combination, Ensemble, Gate, GraphError, Leaf, fuse
from tests.graphs.models import check_golden, identities, identity, net, run, text_of, write
from toolkit.runtime import GateRule, interpolate_gated, log_weights

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)


def gate(folder, dims="[b, 2]", dtype="float"):
    """A gate whose scores are its input ``s``."""
    path = folder / "gate.onnx"
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"net ({dtype}{dims} s) => ({dtype}{dims} scores) {{ scores = Identity (s) }}"
    )
    return Leaf("gate", write(path, text))


def fused(folder, combination, *, members="[b, 3]", dtype="float", scores="[b, 2]", **how):
    """Two members that pass on z0 and z1, and a gate that passes on s."""
    leaves = identities(folder, 2, dims=members, dtype=dtype)
    tree = Ensemble(
        "root", leaves, Combination(*combination, (), "logits"),
        gate=Gate(gate(folder, scores, how.pop("kind", "float")), "scores", **how),
    )  # fmt: skip
    fuse(tree, folder / "model.onnx")
    return folder / "model.onnx"


CASES = {
    "per example": ("[b, 3]", "[b, 2]", (5, 3), (5, 2)),
    "per position": ("[b, s, 3]", "[b, s, 2]", (5, 4, 3), (5, 4, 2)),
    "per example over positions": ("[b, s, 3]", "[b, 2]", (5, 4, 3), (5, 2)),
    "one for all": ("[b, s, 3]", "[1, 2]", (5, 4, 3), (1, 2)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("combination", "activation"),
    [
        (("linear", "logits"), "softmax"),
        (("linear", "probabilities"), "softmax"),
        (("linear", "values"), "softmax"),
        (("log_linear", "logits"), "softmax"),
        (("log_linear", "logits"), "softplus"),
        (("log_linear", "probabilities"), "softplus"),
    ],
)
@pytest.mark.parametrize("top_k", [None, 1])
def test_the_graph_computes_the_definition(case, combination, activation, top_k, tmp_path):
    dims, rows, shape, scored = CASES[case]
    path = fused(
        tmp_path, combination, members=dims, scores=rows, top_k=top_k, activation=activation
    )
    z0, z1 = (RNG.normal(size=shape).astype(np.float32) for _ in range(2))
    if combination[1] == "probabilities":
        z0, z1 = (torch.softmax(torch.from_numpy(z), -1).numpy() for z in (z0, z1))
    s = RNG.normal(size=scored).astype(np.float32)
    logs = log_weights(torch.from_numpy(s).double(), GateRule("", top_k, activation))
    parts = [torch.from_numpy(z).double() for z in (z0, z1)]
    wanted = interpolate_gated(parts, logs, *combination)
    # A dozen roundings of numbers below 8.
    np.testing.assert_allclose(run(path, z0=z0, z1=z1, s=s), wanted, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "float"), ("double", "float16")])
def test_weights_are_computed_in_the_type_that_accumulates(dtype, kind, tmp_path):
    path = fused(tmp_path, ("linear", "logits"), dtype=dtype, kind=kind)
    numpy = {"float16": np.float16, "double": np.float64, "float": np.float32}
    z = RNG.normal(size=(2, 5, 3)).astype(numpy[dtype])
    s = RNG.normal(size=(5, 2)).astype(numpy[kind])
    logs = log_weights(torch.from_numpy(s).double(), GateRule(""))
    wanted = interpolate_gated([*torch.from_numpy(z).double()], logs, "linear", "logits")
    found = run(path, z0=z[0], z1=z[1], s=s)
    assert found.dtype == numpy[dtype]
    np.testing.assert_allclose(found, wanted, rtol=1e-3 if dtype == "float16" else 1e-14)


def test_the_gate_shares_inputs_and_stands_in_the_graph(tmp_path):
    leaves = tuple(
        Leaf(name, net(tmp_path / f"{name}.onnx", seed)) for seed, name in enumerate("ab")
    )
    text = """<ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 4] y) => (float[batch, 2] logits) { logits = MatMul (y, weight) }"""
    weight = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    model = Leaf("gate", write(tmp_path / "gate.onnx", text, weight=weight), {"y": "x"})
    tree = Ensemble(
        "root", leaves, Combination("linear", "logits", (), "logits"), gate=Gate(model, "logits", 1)
    )
    fuse(tree, tmp_path / "model.onnx")
    check_golden("fuse_gated.txt", text_of(tmp_path / "model.onnx"))
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in graph.input] == ["x"]
    wants_first = (X @ weight)[:, 0] > (X @ weight)[:, 1]
    members = [
        torch.log_softmax(torch.from_numpy(run(leaf.path, x=X)), -1).numpy() for leaf in leaves
    ]
    wanted = np.where(wants_first[:, None], *members)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x=X), wanted, rtol=0, atol=1e-6)


def test_a_gate_may_be_an_ensemble_and_an_ensemble_a_gated_member(tmp_path):
    scores = identity(tmp_path / "scores.onnx", output="scores", dims="[b, 2]")
    judges = tuple(Leaf(f"g{i}", scores, {"z": f"s{i}"}) for i in range(2))
    mean = Ensemble("gate", judges, Combination("linear", "values", (0.5, 0.5), "scores"))
    leaves = identities(tmp_path, 3)
    how = Combination("linear", "logits", (), "logits")
    inner = Ensemble("inner", leaves[:2], how, gate=Gate(gate(tmp_path), "scores"))
    tree = Ensemble("root", (inner, leaves[2]), how, gate=Gate(mean, "scores"))
    fuse(tree, tmp_path / "model.onnx")
    z = RNG.normal(size=(3, 5, 3)).astype(np.float32)
    s0, s1, s = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    parts = [torch.from_numpy(part).double() for part in z]

    def mixed(members, scored):
        logs = log_weights(torch.from_numpy(scored).double(), GateRule(""))
        return interpolate_gated(members, logs, "linear", "logits")

    wanted = mixed([mixed(parts[:2], s), parts[2]], (s0 + s1) / 2)
    found = run(tmp_path / "model.onnx", z0=z[0], z1=z[1], z2=z[2], s0=s0, s1=s1, s=s)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scores": "[b, 3]"}, r"gate 'gate' gives 'scores' as float32\[b, 3\] for 2 members"),
        ({"scores": "[n, 2]"}, r"wanted scores \[b, 2\]"),
        ({"scores": "[b, 3, 2]"}, r"the members give float32\[b, 3\]"),
        ({"kind": "int64"}, r"as int64\[b, 2\]"),
        ({"top_k": 3}, "the gate of ensemble 'root' keeps 3 of 2 members, wanted 1 to 2"),
        ({"activation": "softplus"}, "softplus gives weights that do not sum to 1"),
    ],
)
def test_a_gate_that_does_not_fit_is_refused(options, text, tmp_path):
    with pytest.raises(GraphError, match=text):
        fused(tmp_path, ("linear", "logits"), **options)


def test_constant_weights_beside_a_gate_are_refused(tmp_path):
    how = Combination("linear", "logits", (0.5, 0.5), "logits")
    with pytest.raises(GraphError, match="has both constant weights and a gate"):
        Ensemble("root", identities(tmp_path, 2), how, gate=Gate(gate(tmp_path), "scores"))


def test_an_output_that_the_gate_lacks_is_named(tmp_path):
    how = Combination("linear", "logits", (), "logits")
    tree = Ensemble("root", identities(tmp_path, 2), how, gate=Gate(gate(tmp_path), "weights"))
    with pytest.raises(GraphError, match="gate 'gate' has no output 'weights'") as found:
        fuse(tree, tmp_path / "model.onnx")
    assert found.value.hint == "its outputs are scores"
