"""A block of experts, its gating and its weighted sum as one ``com.microsoft.MoE``."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import dims_of
from graphs.moe.activations import Activation, activation_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.routing import dispatcher_of
from graphs.moe.slabs import slab_of
from graphs.moe.slot_sums import arranged, replace_sum, sum_of_slots

__all__ = ["to_native"]

_DOMAIN = "com.microsoft"


def to_native(block: ExpertBlock, model: ir.Model) -> str | None:
    """Replace the block and all that weighs and sums its slots.

    The operator of ONNX Runtime chooses experts itself, in float32 on the CPU: softmax of the
    logits, the k largest, normalised or not. It wants gate and up projection interleaved; weights
    in another order are written in that one when the graph is saved, a tensor at a time.

    Returns:
        Why it cannot be done; None if it was.
    """
    gating = dispatcher_of(block.ids)
    if gating is None or gating.op_type != "TopKGating" or gating.inputs[0] is None:
        return "its routing is not TopKGating"
    if block.x.dtype != ir.DataType.FLOAT or block.spread != block.top_k:
        return "it is not in float32" if block.x.dtype != ir.DataType.FLOAT else "it has no tokens"
    activation = activation_of(block)
    if activation is None:
        return "its activation is not one of the operator's"
    found = sum_of_slots(block)
    if found is None or found[1] is not gating.outputs[0]:
        return "what its slots are summed up by is not found"
    _put(block, gating, activation, found[0], model.graph)
    model.graph.opset_imports[_DOMAIN] = 1
    return None


def _put(
    block: ExpertBlock, gating: ir.Node, activation: Activation, total: ir.Value, graph: ir.Graph
) -> None:
    up, down = block.linears
    swap = activation.kind == "swiglu" and not activation.interleaved
    inputs: list[ir.Value | None] = [block.x, gating.inputs[0]]
    for linear, order in ((up, swap), (down, False)):
        weight, *bias = linear.inputs[2:]
        inputs += [_stored(weight, order, graph), *(_stored(b, order, graph) for b in bias)]
        inputs += [None] * (1 - len(bias))
    attributes: dict[str, int | float | str] = {
        "k": block.top_k or 1,
        "normalize_routing_weights": gating.attributes.get_int("normalize", 1),
        "activation_type": activation.kind,
    }
    if activation.kind == "swiglu":
        attributes |= {
            "swiglu_fusion": 1,
            "activation_alpha": activation.alpha,
            "activation_beta": activation.beta,
        }
        if np.isfinite(activation.limit):
            attributes["swiglu_limit"] = activation.limit
    added = Additions(graph, f"{block.name}/experts")
    result = ir.Value(name=f"{block.name}/moe", shape=total.shape, type=block.x.type)
    while inputs[-1] is None:
        inputs.pop()
    node = ir.node(
        "MoE", inputs, attributes, domain=_DOMAIN, outputs=[result], name=str(result.name)
    )
    node.metadata_props.update(down.metadata_props)
    graph.append(node)
    scale = gating.attributes.get_float("scale", 1.0)
    if scale != 1:
        factor = added.constant("scale", np.array(scale, np.float32))
        dims = () if total.shape is None else dims_of(total.shape)
        result = added.node("scaled", "Mul", [result, factor], ir.DataType.FLOAT, dims)
    replace_sum(total, result, graph)


def _stored(value: ir.Value | None, interleave: bool, graph: ir.Graph) -> ir.Value:
    """Weights [E, U, D], or biases [E, U], in the operator's order of U."""
    assert value is not None
    slab = slab_of(value)
    assert slab is not None
    if not slab.transposed and not interleave:
        return slab.value
    tensor = slab.value.const_value
    assert tensor is not None
    sizes = list(tensor.shape.numpy())
    shape = [sizes[0], sizes[2], sizes[1]] if slab.transposed else sizes
    label = "interleaved" if interleave else "transposed"
    return arranged(slab, label, shape, partial(_reordered, slab.transposed, interleave), graph)


def _reordered(
    transposed: bool, interleave: bool, array: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    if transposed:
        array = array.swapaxes(1, 2)
    if interleave:
        half = array.shape[1] // 2
        array = np.stack([array[:, :half], array[:, half:]], axis=2).reshape(array.shape)
    return array
