"""A block of experts and its weighted sum as one ``TRT_MoE``, TensorRT's own operator."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import Dim, dims_of
from graphs.moe.activations import Activation, activation_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.routing import operator
from graphs.moe.slabs import Slab, slab_of
from graphs.moe.slot_sums import arranged, replace_sum, sum_of_slots

__all__ = ["to_tensorrt_native"]


def to_tensorrt_native(block: ExpertBlock, model: ir.Model) -> str | None:
    """Replace the block and what weighs and sums its slots; the router stays as it is.

    The operator wants gate and up projection apart and all weights as [E, in, out]; what a
    checkpoint keeps in another order is written in that one when the graph is saved, a tensor at a
    time.

    Returns:
        Why it cannot be done; None if it was.
    """
    if block.spread != block.top_k:
        return "it has no tokens"
    if any(len(linear.inputs) > 3 for linear in block.linears):
        return "its experts have biases"
    activation = activation_of(block)
    plain = Activation("swiglu"), Activation("swiglu", interleaved=True)
    if activation not in plain:
        return "its activation is not a gated SiLU"
    found = sum_of_slots(block)
    if found is None or found[1].shape is None or len(found[1].shape) != 2:
        return "what its slots are summed up by is not found"
    _put(block, activation.interleaved, *found, model)
    return None


def _put(
    block: ExpertBlock, interleaved: bool, total: ir.Value, weights: ir.Value, model: ir.Model
) -> None:
    graph = model.graph
    added = Additions(graph, f"{block.name}/experts")
    kind, out = block.x.dtype, total.dtype
    assert kind is not None
    assert out is not None
    batch = added.constant("batch", np.array([0], np.int64))

    def one_batch(label: str, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        sizes = () if value.shape is None else dims_of(value.shape)
        cast = added.node(f"{label}_cast", "Cast", [value], dtype, sizes, to=dtype)
        return added.node(label, "Unsqueeze", [cast, batch], dtype, (1, *sizes))

    up, down = (_slab(linear) for linear in block.linears)
    inputs = [
        one_batch("states", block.x, kind),
        one_batch("choices", block.ids, ir.DataType.INT32),
        one_batch("scores", weights, kind),
        _half(up, "gate", interleaved, graph),
        _half(up, "up", interleaved, graph),
        _whole(down, graph),
    ]
    sizes: tuple[Dim, ...] = () if total.shape is None else dims_of(total.shape)
    given = ir.Value(
        name=f"{block.name}/moe", shape=ir.Shape((1, *sizes)), type=ir.TensorType(kind)
    )
    node = operator("TRT_MoE", inputs, [given], model, str(given.name), activation_type=1)
    node.metadata_props.update(block.linears[1].metadata_props)
    graph.append(node)
    tokens = added.node("tokens", "Squeeze", [given, batch], kind, sizes)
    replace_sum(total, added.node("sum", "Cast", [tokens], out, sizes, to=out), graph)


def _slab(linear: ir.Node) -> Slab:
    weight = linear.inputs[2]
    assert weight is not None
    slab = slab_of(weight)
    assert slab is not None
    return slab


def _sizes(slab: Slab) -> tuple[int, int, int]:
    """E, in and out."""
    tensor = slab.value.const_value
    assert tensor is not None
    count, *sides = tensor.shape.numpy()
    into, out = sides if slab.transposed else sides[::-1]
    return count, into, out


def _half(slab: Slab, which: str, interleaved: bool, graph: ir.Graph) -> ir.Value:
    """The gate or the up projection, [E, H, I]."""
    count, into, out = _sizes(slab)
    arrange = partial(_taken, slab.transposed, which == "up", interleaved)
    return arranged(slab, which, [count, into, out // 2], arrange, graph)


def _taken(
    transposed: bool, second: bool, interleaved: bool, array: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    array = array if transposed else array.swapaxes(1, 2)
    half = array.shape[2] // 2
    if interleaved:
        return array[:, :, int(second) :: 2]
    return array[:, :, half:] if second else array[:, :, :half]


def _whole(slab: Slab, graph: ir.Graph) -> ir.Value:
    """The down projection, [E, I, H]."""
    if slab.transposed:
        return slab.value
    return arranged(
        slab, "transposed", list(_sizes(slab)), lambda array: array.swapaxes(1, 2), graph
    )
