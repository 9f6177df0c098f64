"""What stands between the two linear layers of an expert, told by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.moe.blocks import ExpertBlock, is_expert_linear

__all__ = ["Activation", "activation_of"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activation:
    """An activation as ``com.microsoft.MoE`` names it.

    Attributes:
        kind: ``swiglu`` reads two values and gives one: glu * sigmoid(alpha * glu) * (linear +
            beta), with glu at most ``limit`` and linear within it; ``silu`` and ``relu`` read one.
        interleaved: Whether glu and linear alternate; else they are the halves of a row.
        alpha: See ``kind``.
        beta: See ``kind``.
        limit: See ``kind``; infinite for none.
    """

    kind: str
    interleaved: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    limit: float = float("inf")

    def __call__(self, rows: Array) -> Array:
        """Rows [n, U] to [n, I] by the definition."""
        if self.kind == "relu":
            return np.maximum(rows, 0)
        if self.kind == "silu":
            return rows * _sigmoid(rows)
        half = rows.shape[1] // 2
        glu, linear = (
            (rows[:, ::2], rows[:, 1::2]) if self.interleaved else (rows[:, :half], rows[:, half:])
        )
        glu, linear = np.minimum(glu, self.limit), np.clip(linear, -self.limit, self.limit)
        return glu * _sigmoid(self.alpha * glu) * (linear + self.beta)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # to 0, which is right
        return (1 / (1 + np.exp(-x))).astype(np.float32)


def activation_of(block: ExpertBlock) -> Activation | None:
    """The activation that computes what a block's row-wise nodes do; None if none of them."""
    linears = block.linears
    if len(linears) != 2:
        return None
    entry, last = linears[0].outputs[0], linears[1].inputs[0]
    width = None if entry.shape is None else entry.shape[1]
    if not isinstance(width, int) or last is None:
        return None
    run = _middle(block, entry, last)
    rows = 6 * np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    try:
        found = run(rows)
    except Exception:  # noqa: BLE001  the evaluator raises whatever its Python code runs into
        return None
    for known in _candidates(block):
        if known.kind == "swiglu" and width % 2:
            continue
        wanted = known(rows)
        if found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-5, atol=1e-5):
            return known
    return None


def _candidates(block: ExpertBlock) -> Iterator[Activation]:
    yield Activation("swiglu")
    yield Activation("swiglu", interleaved=True)
    yield Activation("silu")
    yield Activation("relu")
    numbers = sorted(_constants(block))
    for alpha in numbers:
        for limit in (*(n for n in numbers if n > 0), float("inf")):
            for beta in (1.0, 0.0):
                yield Activation("swiglu", interleaved=True, alpha=alpha, beta=beta, limit=limit)


def _constants(block: ExpertBlock) -> set[float]:
    found = set()
    for node in block.nodes:
        for value in node.inputs if not is_expert_linear(node) else ():
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if tensor is not None and tensor.size == 1 and tensor.dtype.is_floating_point():
                found.add(float(tensor.numpy().ravel()[0]))
    return found


def _middle(block: ExpertBlock, entry: ir.Value, last: ir.Value) -> Callable[[Array], Array]:
    """What the row-wise nodes compute, by ONNX's reference implementation."""
    nodes = [node for node in block.nodes if not is_expert_linear(node)]
    constants = {}
    for node in nodes:
        for value in node.inputs:
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if value is not None and tensor is not None:
                constants[str(value.name)] = tensor.numpy()
    graph = helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "activation",
        [helper.make_tensor_value_info(str(entry.name), onnx.TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(str(last.name), onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    owner = block.nodes[0].graph
    opset = 20 if owner is None else owner.opset_imports.get("", 20)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])

    def run(rows: Array) -> Array:
        (found,) = ReferenceEvaluator(model).run(None, {str(entry.name): rows})
        return np.asarray(found)

    return run
