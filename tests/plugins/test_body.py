"""The kernels' code against ONNX Runtime running the operators' bodies, all six outputs."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from benchmarks.gpu.reference import Gating, ulps
from graphs.contracts import DOMAIN, VERSION
from graphs.ops import CONTRACTS
from tests.graphs.models import session
from tests.plugins import host

# Older releases divide by zero on no tokens and do not say where NaN goes.
RECENT = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32)

KINDS = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}
OUTPUTS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


@functools.cache
def body(g: Gating, kind: int):
    """The operator's function as a session."""
    contract = CONTRACTS["GroupedTopKGating" if g.grouped else "TopKGating"]
    attributes = {a.name: getattr(g, a.name) for a in contract.attributes if hasattr(g, a.name)}
    names = [output.name for output in contract.outputs]
    node = helper.make_node(
        contract.name, [i.name for i in contract.inputs], names, domain=DOMAIN, **attributes
    )
    shapes = {"logits": [None, g.num_experts], "bias": [g.num_experts]}
    graph = helper.make_graph(
        [node],
        "gating",
        [helper.make_tensor_value_info(i.name, kind, shapes[i.name]) for i in contract.inputs],
        [
            helper.make_tensor_value_info(o.name, OUTPUTS[o.dtypes[0]], None)
            for o in contract.outputs
        ],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    function = ir.serde.serialize_function(contract.function(20))
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    return session(model.SerializeToString())


def run(g: Gating, logits: torch.Tensor, bias: torch.Tensor | None) -> list[torch.Tensor]:
    feeds = {"logits": logits.numpy()}
    if bias is not None:
        feeds["bias"] = bias.numpy()
    found = body(g, KINDS[logits.dtype]).run(None, feeds)
    return [torch.from_numpy(np.asarray(array)) for array in found]


def assert_agrees(lib: ctypes.CDLL, g: Gating, logits: torch.Tensor, bias=None) -> None:
    weights, *rest = run(g, logits, bias)
    found, ids = host.gating(lib, g, logits, bias)
    for left, right in zip((ids, *host.dispatch(lib, ids, g.num_experts)), rest, strict=True):
        assert torch.equal(left, right)
    # ONNX Runtime rounds at every step: differences of logits up to 16 to 2^-20, then their
    # exponentials, their sum and the quotient.
    assert ulps(found, weights) <= 32


# Logits on a grid, so that many tie.
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize(("experts", "k"), [(8, 2), (60, 4), (128, 8), (300, 12), (5, 5)])
@pytest.mark.parametrize("normalize", [1, 0])
def test_plain_gating_is_its_body(lib, dtype, experts, k, normalize):
    generator = torch.Generator().manual_seed(experts)
    logits = (torch.randint(-32, 33, (40, experts), generator=generator) / 4).to(dtype)
    g = Gating(experts, k, normalize, scale=2.0)
    assert_agrees(lib, g, logits)
    if RECENT:
        assert_agrees(lib, g, logits[:0])
    assert_agrees(lib, g, torch.zeros_like(logits))


@pytest.mark.parametrize(
    "sizes",
    [(256, 8, 8, 4, 2), (160, 6, 8, 3, 1), (12, 3, 1, 1, 1), (8, 8, 4, 2, 2)],
    ids=str,
)
@pytest.mark.parametrize("sigmoid", [1, 0])
def test_grouped_gating_is_its_body(lib, sizes, sigmoid):
    experts, k, groups, top_groups, group_top = sizes
    generator = torch.Generator().manual_seed(experts)
    logits = torch.randint(-16, 17, (40, experts), generator=generator) / 8
    bias = torch.randint(-4, 5, (experts,), generator=generator) / 16
    g = Gating(experts, k, 1, 2.5, sigmoid, groups, top_groups, group_top, 1)
    for normalize in (1, 0):
        assert_agrees(lib, g.with_(normalize=normalize), logits, bias)
    assert_agrees(lib, g, torch.zeros_like(logits), torch.zeros(experts))


@pytest.mark.skipif(not RECENT, reason="ONNX Runtime is older than 1.32")
@pytest.mark.parametrize("normalize", [1, 0])
def test_nan_and_infinities_are_as_in_the_body(lib, normalize):
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor(
        [[1, nan, 3, nan, 0, -1], [nan] * 6, [inf, 1, 2, 3, inf, 0], [-inf] * 6,
         [-inf, 1, -inf, 2, 3, 4], [5, 4, 3, 2, 1, nan], [0, -0.0, 0, -0.0, 0, 0]]
    )  # fmt: skip
    for k in (1, 2, 6):
        assert_agrees(lib, Gating(6, k, normalize), logits)
